"""Where the rows of an array lie in its files, and which rows no file holds.

Zarr reads an absent row as zeros, without an error. A build writes every row, so absence is damage, and zeros would be
trained on as black tiles. An image may be black, so no fill value could tell the two apart; what can is the index at
the end of a shard, a few hundred bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

ABSENT = np.iinfo(np.uint64).max
"""Offset and length of a row that its shard does not hold."""

MAX_ENCODED_BYTES = (1 << 30) + (1 << 26)
"""Of a chunk: a reader asks for the memory before it finds that the file is shorter. Codecs may add a little."""

_CRC_BYTES = 4


def rows_per_file(array: zarr.Array[Any]) -> int:
    """Rows of a shard, or of a chunk where the array has no shards."""
    return int((array.shards or array.chunks)[0])


def file_key(array: zarr.Array[Any], number: int) -> str:
    """Key of one shard or chunk in the array, by its place along the first axis."""
    return array.metadata.encode_chunk_key((number, *(0 for _ in array.shape[1:])))


def read_shard_index(array: zarr.Array[Any], number: int) -> NDArray[np.uint64]:
    """Read where the rows of one shard lie in its file.

    Returns:
        uint64 (chunks of a shard, 2), offset and length in bytes; all `ABSENT` where there is no file.

    Raises:
        ValueError: The index is damaged.
    """
    slots = math.prod(of_shard // of_chunk for of_shard, of_chunk in zip(array.shards or (), array.chunks, strict=True))
    # The sharding codec of the Zarr v3 specification: (offset, length) of each chunk, then their CRC-32C.
    tail = _tail(array, number, slots * 16 + _CRC_BYTES)
    if not tail:
        return np.full((slots, 2), ABSENT)
    pairs, checksum = tail[:-_CRC_BYTES], tail[-_CRC_BYTES:]
    if len(pairs) != slots * 16 or google_crc32c.value(pairs) != int.from_bytes(checksum, "little"):
        raise ValueError(f"the index of shard {number} is damaged")
    index = np.frombuffer(pairs, "<u8").reshape(slots, 2)
    longest = index[:, 1][index[:, 0] != ABSENT].max(initial=0)
    if longest > MAX_ENCODED_BYTES:
        raise ValueError(f"its index says that a chunk has {longest} bytes")
    return index


def absent_rows(array: zarr.Array[Any], number: int) -> Sequence[int]:
    """List the rows of one shard, or of one chunk where there are no shards, that no file holds."""
    slots = rows_per_file(array)
    rows = range(number * slots, min((number + 1) * slots, int(array.shape[0])))
    if not array.shards:
        return [] if _tail(array, number, 1) else rows
    chunk_rows = int(array.chunks[0])
    offsets = read_shard_index(array, number)[:, 0].reshape(slots // chunk_rows, -1)
    return [row for row in rows if (offsets[row % slots // chunk_rows] == ABSENT).any()]


def _tail(array: zarr.Array[Any], number: int, size: int) -> bytes:
    """The last bytes of one shard or chunk; none where there is no file."""
    key = file_key(array, number)
    tail = sync((array.store_path / key).get(default_buffer_prototype(), SuffixByteRequest(size)))
    return b"" if tail is None else tail.to_bytes()
