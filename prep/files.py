"""Hash files, write small files atomically, and describe written files, for several stages of a build."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import google_crc32c

_COLUMNS = ("key", "sha256", "size_bytes")

CHECKSUM_FILES = frozenset(
    {"checksums/zarr.json", *(f"checksums/{name}/{file}" for name in _COLUMNS for file in ("zarr.json", "c/0"))}
)
"""The files of the checksums themselves. No checksum covers them, nor the root's `zarr.json`."""

_PIECE_BYTES = 1 << 18


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


def crc32c_of(path: Path) -> str:
    """CRC-32C of a file in hexadecimal; it finds accidental damage, in a tenth of the time of SHA-256."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            checksum = cast("int", google_crc32c.extend(checksum, cast("Any", piece)))
    return f"{checksum:08x}"


def is_there(place: Path) -> bool:
    """Whether a path holds something; an empty folder counts as nothing."""
    return place.exists() and not (place.is_dir() and not any(place.iterdir()))


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader never sees it half-written."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
