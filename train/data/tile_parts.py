"""Read tiles in parts: a tile may have thousands of objects, each with masks as large as the tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch.utils.data import DataLoader, Dataset

from schemas.errors import TrainingError
from schemas.record import Record
from schemas.store.store import Store
from train.runtime.loading_process import loading_error, prepare_process

MAX_PART_BYTES = 1 << 26
"""Maximum size of the segments of a part; 64 objects at 1024 px have this size.

An evaluation needs about ten times as much memory, for the masks of a model and of the baselines and for scoring."""


@dataclass(frozen=True)
class TilePart:
    """A tile with all of its objects, or with some that follow each other in the store.

    Attributes:
        index: The tile's index in the store.
        object_ids: The objects.
        more_follow: Whether the next part has further objects of the tile.
    """

    index: int
    object_ids: tuple[int, ...]
    more_follow: bool


def tile_parts(store: Store, indices: Sequence[int]) -> Iterator[TilePart]:
    """Yield the parts of tiles, in order."""
    for index in indices:
        groups = store.tile(index).object_groups(MAX_PART_BYTES)
        for number, object_ids in enumerate(groups, start=1):
            yield TilePart(index, tuple(object_ids), more_follow=number < len(groups))


def read_parts(store: Store, indices: Sequence[int], workers: int) -> Iterator[tuple[TilePart, Record]]:
    """Read tiles in order, part by part; the record of a part has only the objects of that part.

    Args:
        store: The store.
        indices: Indices of the tiles.
        workers: Number of processes that read; 0 reads in this process.

    Raises:
        StoreError: A tile is damaged.
        TrainingError: A worker process read a damaged tile, or died.
    """
    loader = DataLoader(
        cast("Dataset[Record]", _PartReader(store)),
        batch_size=None,
        sampler=tile_parts(store, indices),
        num_workers=workers,
        collate_fn=_unchanged,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=prepare_process,
    )
    records = iter(loader)
    try:
        for part in tile_parts(store, indices):
            failure: TrainingError | None = None
            try:
                yield part, next(records)
            except RuntimeError as error:
                failure = loading_error(f"a loading process, at the tile {part.index}", error, "repeat the command")
            if failure:
                raise failure
    finally:
        # The loading processes end with the last reference to the iterator, which torch's error would hold. The garbage
        # collector would end them at any later time, and wait five seconds for them.
        del records


@dataclass(frozen=True)
class _PartReader:
    """Reads the record of a part, in a loading process."""

    store: Store

    def __getitem__(self, part: TilePart) -> Record:
        return self.store.tile(part.index).record(set(part.object_ids))


def _unchanged(record: Any) -> Any:
    """Replace the loader's own collation, which would turn arrays into tensors."""
    return record
