"""The codecs of pixel arrays: each encodes and decodes one row, and names the zarr codecs that do the same.

Zarr needs some milliseconds to plan and schedule a call for one chunk, longer than the compression itself. So builds
encode rows and readers decode rows with these functions. Tests compare their bytes and pixels with zarr's.

Every size that a chunk states is compared with the size of the array's row before anything is decoded. So a damaged or
hostile chunk raises an error before memory is allocated for it, and never leaves a pixel unwritten.
Sources: Zarr v3 codecs `crc32c`, `blosc`, `zstd`, `bytes`; RFC 8878 for the Zstandard frame; Blosc 1 chunk format.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numcodecs.blosc
import numcodecs.zstd
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from schemas.codec_names import CodecName
from schemas.limits import MAX_CHUNK_BYTES, MAX_COLUMN_NAME_BYTES
from schemas.store.jpegxl import JpegXlCodec, decode_jpegxl, encode_jpegxl
from schemas.store.shards import has_plain_index, with_crc32c, without_crc32c

if TYPE_CHECKING:
    from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec
    from zarr.core.array_spec import ArraySpec as ChunkSpec
    from zarr.core.buffer import Buffer

Bytes = bytes | memoryview

Decoder = Callable[[Bytes, NDArray[Any]], None]
"""Decodes a chunk into an array of one row; raises ValueError or RuntimeError if the chunk is damaged."""

_BLOSC_LEVEL = 5
_ZSTD_LEVEL = 3

_BLOSC_HEADER_BYTES = 16


@dataclass(frozen=True)
class RowCodec:
    """How a row of a pixel array is encoded to a chunk, and a chunk is decoded to a row.

    Attributes:
        compress: Returns the compressed bytes of one row.
        decompress: Decompresses into an array of one row.
        content_size: Returns how many bytes compressed data decodes to, as its header states; None if `decompress`
            itself refuses data of another size.
        serializer: The zarr codec from an array to bytes; None for `bytes`.
        compressor: The zarr codec from bytes to bytes; None if there is none.
        bounded_compressor: The class of the compressor that checks the stated size before it decodes.
        has_checksum: Whether compressed data contains a checksum; otherwise a chunk ends with its CRC-32C.
    """

    compress: Callable[[NDArray[Any]], bytes]
    decompress: Decoder
    content_size: Callable[[Bytes], int] | None = None
    serializer: ArrayBytesCodec | None = None
    compressor: BytesBytesCodec | None = None
    bounded_compressor: type[BytesBytesCodec] | None = None
    has_checksum: bool = False

    def encode(self, row: NDArray[Any]) -> bytes:
        """Encode one row to the chunk that zarr would write."""
        data = self.compress(np.ascontiguousarray(row))
        return data if self.has_checksum else with_crc32c(data)

    def decode(self, data: Bytes, row: NDArray[Any]) -> None:
        """Decode a chunk, without its CRC-32C, into one row.

        Raises:
            ValueError: The data does not decode to the row's size, or is damaged.
            RuntimeError: The data is damaged.
        """
        if self.content_size is not None:
            size_bytes = self.content_size(data)
            if size_bytes != row.nbytes:
                raise ValueError(f"the chunk holds {size_bytes} bytes of pixels and should hold {row.nbytes}")
        self.decompress(data, row)

    @property
    def array_settings(self) -> dict[str, Any]:
        """The codecs of an array, as keyword arguments of `zarr.Group.create_array`."""
        checksum = None if self.has_checksum else Crc32cCodec()
        settings: dict[str, Any] = {"compressors": [codec for codec in (self.compressor, checksum) if codec]}
        # If no serializer is given, zarr chooses one by the array's type: columns of text need a different one.
        return settings | ({"serializer": self.serializer} if self.serializer else {})

    def reads(self, codecs: tuple[object, ...]) -> bool:
        """Whether this codec decodes an array with these zarr codecs, apart from CRC-32C."""
        kinds = [type(self.serializer) if self.serializer else BytesCodec]
        kinds += [type(self.compressor)] if self.compressor else []
        # isinstance also accepts the bounded subclasses with which `schemas.store.check_arrays` replaces zarr's codecs.
        return len(codecs) == len(kinds) and all(map(isinstance, codecs, kinds))


def blosc_content_size(data: Bytes) -> int:
    """The decoded size in bytes that a Blosc header states.

    Raises:
        ValueError: The length of the data differs from the length in its header.
    """
    # The header has versions, flags and the type's size, then three uint32: decoded size, block size and data size.
    if len(data) < _BLOSC_HEADER_BYTES or int.from_bytes(data[12:16], "little") != len(data):
        raise ValueError("the chunk is cut short")
    return int.from_bytes(data[4:8], "little")


def zstd_content_size(frame: Bytes) -> int:
    """The decoded size in bytes that the header of a Zstandard frame states; RFC 8878, section 3.1.1.1.

    Raises:
        ValueError: The data is not a frame, or states no size.
    """
    if frame[:4] != b"\x28\xb5\x2f\xfd" or len(frame) < 6:
        raise ValueError("the chunk is not a Zstandard frame")
    descriptor = frame[4]
    single_segment, flag = bool(descriptor & 0x20), descriptor >> 6
    if not flag and not single_segment:
        raise ValueError("the chunk does not state its size")
    dictionary_bytes = (0, 1, 2, 4)[descriptor & 3]
    start = 5 + (not single_segment) + dictionary_bytes
    length = (1, 2, 4, 8)[flag]
    if len(frame) < start + length:
        raise ValueError("the chunk is cut short")
    return int.from_bytes(frame[start : start + length], "little") + (256 if flag == 1 else 0)


def check_content_size(size_bytes: int, chunk_spec: ChunkSpec) -> None:
    """Compare the decoded size that a chunk states with the size of its rows.

    Raises:
        ValueError: They differ, or names are longer than a path may be.
    """
    rows = math.prod(chunk_spec.shape)
    dtype = chunk_spec.dtype.to_native_dtype()
    if dtype.kind in "OT":
        sound = size_bytes <= min(4 + rows * (4 + MAX_COLUMN_NAME_BYTES), MAX_CHUNK_BYTES)
    else:
        sound = size_bytes == rows * dtype.itemsize
    if not sound:
        raise ValueError(f"a chunk says that it decodes to {size_bytes} bytes")


class BoundedBlosc(BloscCodec):
    """Zarr's Blosc codec, which checks the stated size before it decodes."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ChunkSpec) -> Buffer:
        check_content_size(blosc_content_size(chunk_bytes.to_bytes()), chunk_spec)
        return await super()._decode_single(chunk_bytes, chunk_spec)


class BoundedZstd(ZstdCodec):
    """Zarr's Zstandard codec, which checks the stated size before it decodes."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ChunkSpec) -> Buffer:
        check_content_size(zstd_content_size(chunk_bytes.to_bytes()[:18]), chunk_spec)
        return await super()._decode_single(chunk_bytes, chunk_spec)


def _copy(data: Bytes, row: NDArray[Any]) -> None:
    row.reshape(-1)[:] = np.frombuffer(data, row.dtype)


_blosc, _zstd = cast("Any", numcodecs.blosc), cast("Any", numcodecs.zstd)
_blosc_lz4 = _blosc.Blosc(cname="lz4", clevel=_BLOSC_LEVEL, shuffle=_blosc.BITSHUFFLE)
_zstd_frame = _zstd.Zstd(level=_ZSTD_LEVEL, checksum=True)

# Chosen for reading: lz4 with bit shuffle decodes tissue about as fast as memory is copied.
BLOSC = RowCodec(
    compress=lambda row: bytes(_blosc_lz4.encode(row)),
    decompress=_blosc.decompress,
    content_size=blosc_content_size,
    compressor=BloscCodec(cname="lz4", clevel=_BLOSC_LEVEL, shuffle="bitshuffle", typesize=1),
    bounded_compressor=BoundedBlosc,
)
JPEG_XL = RowCodec(compress=encode_jpegxl, decompress=decode_jpegxl, serializer=JpegXlCodec())
ZSTD = RowCodec(
    compress=lambda row: bytes(_zstd_frame.encode(row)),
    decompress=_zstd.decompress,
    content_size=zstd_content_size,
    compressor=ZstdCodec(level=_ZSTD_LEVEL, checksum=True),
    bounded_compressor=BoundedZstd,
    has_checksum=True,
)
"""The codec of everything except images: labels, packed masks, and columns."""
# No build writes this one; `benchmarks/codecs.py` reads an uncompressed store for comparison.
UNCOMPRESSED = RowCodec(compress=lambda row: row.tobytes(), decompress=_copy, content_size=len)

IMAGE_CODECS: dict[CodecName, RowCodec] = {"fast": BLOSC, "small": JPEG_XL}

ROW_CODECS: tuple[RowCodec, ...] = (*IMAGE_CODECS.values(), ZSTD, UNCOMPRESSED)
"""All codecs that a reader accepts."""


def array_codec(path: str, images: CodecName) -> RowCodec:
    """Return the codec that a build uses for an array; for columns, which zarr itself writes, it only gives settings.

    Args:
        path: The array's path in the store.
        images: The name of the codec for images.
    """
    return IMAGE_CODECS[images] if path == "images" else ZSTD


def row_decoder(array: zarr.Array[Any]) -> Decoder | None:
    """Return the decoder of an array whose chunks hold one row each; None if zarr must read the array."""
    codecs = cast("Any", array.metadata).codecs
    if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec) or sys.byteorder != "little":
        return None
    sharding = codecs[0]
    whole_rows = array.chunks == (1, *array.shape[1:]) and (array.shards or ())[1:] == array.shape[1:]
    if not whole_rows or not has_plain_index(sharding):
        return None
    has_crc32c = isinstance(sharding.codecs[-1], Crc32cCodec)
    inner = cast("tuple[object, ...]", sharding.codecs[: -1 if has_crc32c else None])
    found = next((codec for codec in ROW_CODECS if codec.reads(inner)), None)
    if found is None or not has_crc32c:
        return found.decode if found else None
    return lambda chunk, row: found.decode(without_crc32c(chunk), row)


def use_one_thread() -> None:
    """Make Blosc encode in one thread: several threads write blocks in the order they finish, so bytes would vary."""
    numcodecs.blosc.use_threads = False
