"""Decode one chunk into memory that the caller gives, as zarr would, without zarr's planning and scheduling.

Every size that a chunk states is compared with what the array's shape demands before anything is decoded, so a damaged
or hostile chunk is an error, takes no memory, and leaves no pixel unwritten.
Sources: Zarr v3 codecs `crc32c`, `blosc`, `zstd`, `bytes`; RFC 8878 for a frame of Zstandard; Blosc 1 chunk format.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from schemas.store.jpegxl import JpegXlCodec, decode_jpegxl

Decoder = Callable[[bytes | memoryview, NDArray[Any]], None]
"""Decodes a chunk's bytes into an array; raises ValueError or RuntimeError where they are damaged."""

_CRC_BYTES = 4
_BLOSC_HEADER_BYTES = 16


def row_decoder(array: zarr.Array[Any]) -> Decoder | None:
    """Make the decoder of an array whose chunk is one row, in shards; None where the array is made otherwise."""
    codecs = cast("Any", array.metadata).codecs
    if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec) or sys.byteorder != "little":
        return None
    sharding = codecs[0]
    whole_rows = array.chunks == (1, *array.shape[1:]) and (array.shards or ())[1:] == array.shape[1:]
    if not whole_rows or not has_plain_index(sharding):
        return None
    checked = isinstance(sharding.codecs[-1], Crc32cCodec)
    inner = cast("tuple[object, ...]", sharding.codecs[: -1 if checked else None])
    decode = next((found for kinds, found in _DECODERS.items() if _are(inner, kinds)), None)
    if decode is None or not checked:
        return decode
    return lambda chunk, row: decode(_without_crc32c(chunk), row)


def has_plain_index(codec: ShardingCodec) -> bool:
    """Whether a shard's index is as `schemas.store.shards` reads it: at the end, little-endian, with a CRC-32C."""
    # By its metadata: what zarr holds in memory differs from version to version.
    settings = cast("Any", codec.to_dict())["configuration"]
    steps = [(step["name"], step.get("configuration", {}).get("endian")) for step in settings["index_codecs"]]
    return steps == [("bytes", "little"), ("crc32c", None)] and settings["index_location"] == "end"


def _are(codecs: tuple[object, ...], kinds: tuple[type, ...]) -> bool:
    # Not by their exact types: `schemas.store.check_arrays` reads through subclasses.
    return len(codecs) == len(kinds) and all(isinstance(codec, kind) for codec, kind in zip(codecs, kinds, strict=True))


def _without_crc32c(chunk: bytes | memoryview) -> memoryview:
    # Views, since a slice of bytes is a copy of megabytes.
    data, checksum = np.frombuffer(chunk, np.uint8)[:-_CRC_BYTES], chunk[-_CRC_BYTES:]
    if len(checksum) != _CRC_BYTES or google_crc32c.value(cast("Any", data)) != int.from_bytes(checksum, "little"):
        raise ValueError("the checksum does not match")
    return data.data


def _decode_plain(chunk: bytes | memoryview, row: NDArray[Any]) -> None:
    _check_size(len(chunk), row)
    row.reshape(-1)[:] = np.frombuffer(chunk, row.dtype)


def _decode_blosc(chunk: bytes | memoryview, row: NDArray[Any]) -> None:
    _check_size(blosc_content_size(chunk), row)
    cast("Any", numcodecs.blosc).decompress(chunk, row)


def _decode_zstd(chunk: bytes | memoryview, row: NDArray[Any]) -> None:
    _check_size(zstd_content_size(chunk), row)
    cast("Any", numcodecs.zstd).decompress(chunk, row)


def _check_size(size: int, row: NDArray[Any]) -> None:
    if size != row.nbytes:
        raise ValueError(f"the chunk holds {size} bytes of pixels and should hold {row.nbytes}")


def blosc_content_size(chunk: bytes | memoryview) -> int:
    """The size without compression that a chunk's header states, once its own size is found to be as stated."""
    # Versions, flags and the type's size, then three uint32: size without compression, of a block, and of the chunk.
    if len(chunk) < _BLOSC_HEADER_BYTES or int.from_bytes(chunk[12:16], "little") != len(chunk):
        raise ValueError("the chunk is cut short")
    return int.from_bytes(chunk[4:8], "little")


def zstd_content_size(frame: bytes | memoryview) -> int:
    """The size without compression that a frame's header states; RFC 8878, section 3.1.1.1."""
    if frame[:4] != b"\x28\xb5\x2f\xfd" or len(frame) < 6:
        raise ValueError("the chunk is no Zstandard frame")
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


_DECODERS: dict[tuple[type, ...], Decoder] = {
    (BytesCodec,): _decode_plain,
    (BytesCodec, BloscCodec): _decode_blosc,
    (BytesCodec, ZstdCodec): _decode_zstd,
    (JpegXlCodec,): decode_jpegxl,
}
