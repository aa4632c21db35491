"""Create the store's arrays, and join encoded chunks into shard files; see `schemas.store.shards` for their format.

Joining needs no decoding, so it runs at the speed of the disk.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr

from prep.files import WrittenFile, sha256_of, write_atomically
from schemas.codec_names import CodecName
from schemas.command.stage_timer import timed
from schemas.errors import StoreError
from schemas.layout import PIXEL_ARRAYS, ArraySpec, packing_attributes
from schemas.store.codecs import array_codec
from schemas.store.shards import shard_index

SHARD_BYTES = 64 << 20
"""Approximate size of a shard before compression: a store has few files, and a shard fits in memory."""

PIECE_BYTES = 1 << 18
"""Bytes that are read, hashed and written at once when chunks are joined."""

COLUMN_ROWS = 16384
"""Rows in one chunk of a column."""


@dataclass(frozen=True)
class ChunkRun:
    """Consecutive encoded chunks in one file.

    Attributes:
        path: The file.
        offset: Where the first chunk begins, in bytes.
        sizes: Length of each chunk in bytes.
    """

    path: Path
    offset: int
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ShardTask:
    """One shard to write.

    Attributes:
        folder: The folder of shards.
        key: The shard's path in the folder, which is also its path in the store.
        pieces: The encoded chunks of its rows, in order.
        slots: Number of rows that a full shard has.
    """

    folder: Path
    key: str
    pieces: tuple[ChunkRun, ...]
    slots: int

    def __str__(self) -> str:
        return f"shard {self.key}"


def rows_per_shard(spec: ArraySpec) -> int:
    """Number of rows of a shard: the largest power of two that keeps it within `SHARD_BYTES` before compression."""
    row_bytes = math.prod(spec.row_shape) * np.dtype(spec.dtype).itemsize
    return 1 << max(int(math.log2(SHARD_BYTES / row_bytes)), 0)


def create_array(
    group: zarr.Group, spec: ArraySpec, rows: int, *, codec: CodecName = "fast", sharded: bool = False
) -> zarr.Array[Any]:
    """Create one array of the store.

    Args:
        group: The store.
        spec: The array.
        rows: Number of rows.
        codec: How images are compressed.
        sharded: Whether chunks are joined into shards; only for pixel arrays.
    """
    chunk_rows = 1 if spec.path in PIXEL_ARRAYS else COLUMN_ROWS
    packed = spec.row_dimensions == ("y", "x_byte")
    return group.create_array(
        spec.path,
        shape=(rows, *spec.row_shape),
        dtype=str if spec.dtype == "str" else spec.dtype,
        chunks=(chunk_rows, *spec.row_shape),
        shards=(rows_per_shard(spec), *spec.row_shape) if sharded else None,
        **array_codec(spec.path, codec).array_settings,
        dimension_names=spec.dimension_names,
        attributes={**packing_attributes(spec.row_shape[1] * 8)} if packed else None,
        # Zarr reads an absent chunk as zeros without an error. If every chunk is written, an absent one is damage.
        config={"write_empty_chunks": True},
    )


def chunk_path(array_path: str, row: int, spec: ArraySpec) -> str:
    """Path of a chunk or shard in the store, by its place along the first axis."""
    return "/".join([array_path, "c", str(row), *("0" for _ in spec.row_shape)])


def write_shard(task: ShardTask) -> WrittenFile:
    """Write one shard from its chunks, and its SHA-256 to a file beside it; a complete shard is used as it is.

    A cluster may run a task twice, even after the shard was moved into the store. So each run writes its own file, in a
    folder that it does not create: after the build has ended, a late run fails and leaves no file.
    """
    with timed("join shards"):
        return _write_shard(task)


def _write_shard(task: ShardTask) -> WrittenFile:
    path, record = task.folder / task.key, task.folder / f"{task.key}.sha256"
    if record.exists() and path.exists() and sha256_of(path) == record.read_text(encoding="ascii"):
        return WrittenFile(task.key, record.read_text(encoding="ascii"), path.stat().st_size)
    partial = task.folder / f"{uuid4().hex}.partial"
    digest = hashlib.sha256()
    with partial.open("wb") as shard:
        for piece in task.pieces:
            for data in _read_pieces(piece):
                digest.update(data)
                shard.write(data)
        index = shard_index([size for piece in task.pieces for size in piece.sizes], task.slots)
        digest.update(index)
        shard.write(index)
        size = shard.tell()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(path)
    # Write the record after the shard: a kill between the two leaves a shard without a record, which is written again.
    write_atomically(record, digest.hexdigest())
    return WrittenFile(task.key, digest.hexdigest(), size)


def _read_pieces(run: ChunkRun) -> Iterator[memoryview]:
    """Yield the bytes of a run in pieces that fit into the CPU's cache; each is valid until the next.

    Raises:
        StoreError: The file of prepared chunks has fewer bytes than its record says.
    """
    piece, left = memoryview(bytearray(PIECE_BYTES)), sum(run.sizes)
    with run.path.open("rb", buffering=0) as chunks:
        chunks.seek(run.offset)
        while left and (count := chunks.readinto(piece[: min(left, PIECE_BYTES)])):
            yield piece[:count]
            left -= count
    if left:
        raise StoreError(run.path, f"lacks its last {left} bytes", "run the same command, which prepares the ROI again")
