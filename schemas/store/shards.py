"""The shard file of a pixel array: its index, its checksum, and which rows it holds.

A shard file holds the chunks of consecutive rows end to end, then an index, then the CRC-32C of the index. The index is
an (offset, length) pair of little-endian uint64 for each chunk, with all bits set for an absent chunk. This is the
`sharding_indexed` codec of the Zarr v3 specification, with the index at the end.

Zarr reads an absent row as zeros, without an error. A build writes every row, so an absent row is damage, and its zeros
would be trained on as a black tile. An image may be black, so no fill value could tell an absent row from a stored one.
The index can, and reading it takes only a few hundred bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import SuffixByteRequest
from zarr.codecs import ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from schemas.limits import MAX_FILE_BYTES

ABSENT = np.iinfo(np.uint64).max
"""Offset and length, in the index, of a row that its shard does not hold."""

CRC_BYTES = 4
"""Length of a checksum."""

_PAIR_BYTES = 16


def crc32c(data: bytes | NDArray[np.uint8]) -> bytes:
    """Return the checksum that zarr's `crc32c` codec appends to a chunk: CRC-32C, little-endian."""
    return cast("int", google_crc32c.value(cast("Any", data))).to_bytes(CRC_BYTES, "little")


def with_crc32c(data: bytes) -> bytes:
    """Append the checksum of zarr's `crc32c` codec."""
    return data + crc32c(data)


def without_crc32c(data: bytes | memoryview) -> memoryview:
    """Compare data with the CRC-32C at its end, and return what comes before.

    Raises:
        ValueError: They differ.
    """
    # Use views, because a slice of bytes would copy megabytes.
    content, checksum = np.frombuffer(data, np.uint8)[:-CRC_BYTES], data[-CRC_BYTES:]
    if len(checksum) != CRC_BYTES or google_crc32c.value(cast("Any", content)) != int.from_bytes(checksum, "little"):
        raise ValueError("the checksum does not match")
    return content.data


def shard_index(sizes: list[int], slots: int) -> bytes:
    """Make the index of a shard whose chunks lie end to end from its first byte.

    Args:
        sizes: Length of each chunk in bytes.
        slots: How many chunks a full shard has.
    """
    index = np.full((slots, 2), ABSENT, "<u8")
    lengths = np.array(sizes, np.uint64)
    index[: len(sizes), 0] = np.cumsum(lengths) - lengths
    index[: len(sizes), 1] = lengths
    return with_crc32c(index.tobytes())


def shard_index_bytes(slots: int) -> int:
    """Return the length of the index of a shard with this many chunks."""
    return slots * _PAIR_BYTES + CRC_BYTES


def read_shard_index(array: zarr.Array[Any], number: int) -> NDArray[np.uint64]:
    """Read where the rows of one shard lie in its file.

    Args:
        array: A sharded array.
        number: The shard's place along the first axis.

    Returns:
        uint64 (chunks of a shard, 2), offset and length in bytes; all `ABSENT` if there is no file.

    Raises:
        ValueError: The index is damaged.
    """
    slots = math.prod(of_shard // of_chunk for of_shard, of_chunk in zip(array.shards or (), array.chunks, strict=True))
    tail = _tail(array, number, shard_index_bytes(slots))
    if not tail:
        return np.full((slots, 2), ABSENT)
    pairs = tail[:-CRC_BYTES]
    if len(pairs) != slots * _PAIR_BYTES or with_crc32c(pairs) != tail:
        raise ValueError(f"the index of shard {number} is damaged")
    index = np.frombuffer(pairs, "<u8").reshape(slots, 2)
    longest = index[:, 1][index[:, 0] != ABSENT].max(initial=0)
    # A reader allocates the memory before it notices that the file is shorter.
    if longest > MAX_FILE_BYTES:
        raise ValueError(f"its index says that a chunk has {longest} bytes")
    return index


def has_plain_index(codec: ShardingCodec) -> bool:
    """Whether a shard's index is as `read_shard_index` reads it: at the end, little-endian, with a CRC-32C."""
    # Check the metadata, because the attributes of zarr's objects differ from version to version.
    settings = cast("Any", codec.to_dict())["configuration"]
    steps = [(step["name"], step.get("configuration", {}).get("endian")) for step in settings["index_codecs"]]
    return steps == [("bytes", "little"), ("crc32c", None)] and settings["index_location"] == "end"


def rows_per_file(array: zarr.Array[Any]) -> int:
    """How many rows a shard has, or a chunk if the array has no shards."""
    return int((array.shards or array.chunks)[0])


def file_key(array: zarr.Array[Any], number: int) -> str:
    """Key of one shard or chunk in the array, by its place along the first axis."""
    return array.metadata.encode_chunk_key((number, *(0 for _ in array.shape[1:])))


def absent_rows(array: zarr.Array[Any], number: int) -> Sequence[int]:
    """List the rows that are in no file, among those of one shard, or of one chunk if there are no shards."""
    slots = rows_per_file(array)
    rows = range(number * slots, min((number + 1) * slots, int(array.shape[0])))
    if not array.shards:
        return [] if _tail(array, number, 1) else rows
    chunk_rows = int(array.chunks[0])
    offsets = read_shard_index(array, number)[:, 0].reshape(slots // chunk_rows, -1)
    return [row for row in rows if (offsets[row % slots // chunk_rows] == ABSENT).any()]


def _tail(array: zarr.Array[Any], number: int, size: int) -> bytes:
    """The last bytes of one shard or chunk; none if there is no file."""
    key = file_key(array, number)
    tail = sync((array.store_path / key).get(default_buffer_prototype(), SuffixByteRequest(size)))
    return b"" if tail is None else tail.to_bytes()
