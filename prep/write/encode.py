"""Encode rows of pixel arrays to the chunks that zarr would write, and keep those of a ROI in one file an array.

A call of zarr for each chunk costs some milliseconds, a multiple of what a small segment takes to compress. The codecs
are those of the arrays' metadata in `prep.write.shards`; tests hold the bytes to what zarr itself writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from schemas.layout import ArraySpec, Codec
from schemas.store.jpegxl import encode_jpegxl

Encoder = Callable[[NDArray[np.generic]], bytes]

BLOSC_LEVEL = 5
ZSTD_LEVEL = 3


def encoder(spec: ArraySpec, codec: Codec) -> Encoder:
    """Make the function from one row of a pixel array to its encoded chunk."""
    if spec.path != "images":
        zstd = cast("Any", numcodecs.zstd).Zstd(level=ZSTD_LEVEL, checksum=True)
        return lambda row: bytes(zstd.encode(np.ascontiguousarray(row)))
    if codec == "small":
        return lambda row: with_crc32c(encode_jpegxl(row))
    blosc = cast("Any", numcodecs.blosc).Blosc(cname="lz4", clevel=BLOSC_LEVEL, shuffle=numcodecs.blosc.BITSHUFFLE)
    return lambda row: with_crc32c(bytes(blosc.encode(np.ascontiguousarray(row))))


def with_crc32c(data: bytes) -> bytes:
    """Append the checksum of zarr's crc32c codec: CRC-32C, little-endian."""
    return data + cast("int", google_crc32c.value(data)).to_bytes(4, "little")


def use_one_thread() -> None:
    """Keep Blosc from threads: they write its blocks in the order in which they finish, and bytes must not vary."""
    numcodecs.blosc.use_threads = False


@dataclass
class ChunkFile:
    """Encoded chunks end to end in one file.

    Attributes:
        path: The file.
        encode: Encodes a row.
        sizes: Bytes of each chunk so far.
    """

    path: Path
    encode: Encoder
    sizes: list[int] = field(default_factory=list[int])
    _file: BinaryIO | None = None

    def __enter__(self) -> ChunkFile:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def append(self, row: NDArray[np.generic]) -> None:
        """Encode and write one row."""
        assert self._file is not None
        chunk = self.encode(row)
        self._file.write(chunk)
        self.sizes.append(len(chunk))
