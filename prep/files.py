"""Hash files, write small files atomically, and describe written files, for several stages of a build."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

_COLUMNS = ("key", "sha256", "size_bytes")

CHECKSUM_FILES = frozenset(
    {"checksums/zarr.json", *(f"checksums/{name}/{file}" for name in _COLUMNS for file in ("zarr.json", "c/0"))}
)
"""The files of the checksums themselves. No checksum covers them, nor the root's `zarr.json`."""


@dataclass(frozen=True)
class WrittenFile:
    """A file of a store, with its digest and length.

    Attributes:
        key: Path in the store.
        sha256: SHA-256 of its bytes, in hexadecimal.
        size_bytes: Length in bytes.
    """

    key: str
    sha256: str
    size_bytes: int


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; the file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_there(place: Path) -> bool:
    """Whether a path holds something; an empty folder counts as nothing."""
    return place.exists() and not (place.is_dir() and not any(place.iterdir()))


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader never sees it half-written."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
