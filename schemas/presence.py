"""Find the rows of an array that its files do not hold: zarr reads them as zeros, without an error.

A build writes every row, so absence is damage, and zeros would be trained on as black tiles. An image may be black, so
no fill value could tell the two apart; what can is the index at the end of a shard, a few hundred bytes. Whoever
keeps the answer asks once a shard, whatever codec pipeline reads the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

_ABSENT = np.iinfo(np.uint64).max
_CRC_BYTES = 4

MAX_ENCODED_BYTES = (1 << 30) + (1 << 26)
"""Of a chunk: a reader asks for the memory before it finds that the file is shorter. Codecs may add a little."""


def rows_per_file(array: zarr.Array[Any]) -> int:
    """Rows of a shard, or of a chunk where the array has no shards."""
    return int((array.shards or array.chunks)[0])


def absent_rows(array: zarr.Array[Any], number: int) -> Sequence[int]:
    """List the rows of one shard, or of one chunk where there are no shards, that no file holds.

    Args:
        array: An array that is cut along its first axis alone.
        number: Which shard or chunk.
    """
    slots = rows_per_file(array)
    rows = range(number * slots, min((number + 1) * slots, int(array.shape[0])))
    # A shard ends with (offset, length) of each slot, as uint64, and their CRC-32C, which zarr checks as it reads.
    size = slots * 16 + _CRC_BYTES if array.shards else 1
    key = array.metadata.encode_chunk_key((number, *(0 for _ in array.shape[1:])))
    tail = sync((array.store_path / key).get(default_buffer_prototype(), SuffixByteRequest(size)))
    if tail is None or len(tail) < size:
        return rows
    if not array.shards:
        return []
    index = np.frombuffer(tail.to_bytes()[:-_CRC_BYTES], "<u8").reshape(slots, 2)
    longest = index[: len(rows), 1][index[: len(rows), 0] != _ABSENT].max(initial=0)
    if longest > MAX_ENCODED_BYTES:
        raise ValueError(f"its index says that a chunk has {longest} bytes")
    return [row for row, (offset, _) in zip(rows, index, strict=False) if offset == _ABSENT]
