"""Small things that several stages of a build do with files: hash one, write one whole, name those of checksums."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

_COLUMNS = ("key", "sha256", "size_bytes")

CHECKSUM_FILES = frozenset(
    {"checksums/zarr.json", *(f"checksums/{name}/{file}" for name in _COLUMNS for file in ("zarr.json", "c/0"))}
)
"""Files that no checksum covers, the root's `zarr.json` aside."""


@dataclass(frozen=True)
class WrittenFile:
    """A file with its digest.

    Attributes:
        key: Its path in the store.
        sha256: Digest of its bytes.
        size_bytes: Its length.
    """

    key: str
    sha256: str
    size_bytes: int


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_there(place: Path) -> bool:
    """Whether something is at a place; an empty folder is nothing."""
    return place.exists() and not (place.is_dir() and not any(place.iterdir()))


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader finds all of it or none."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
