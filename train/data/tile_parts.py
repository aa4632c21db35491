"""Read tiles in parts: a tile may have thousands of objects, each with masks as large as the tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from schemas.record import Record
from schemas.store.store import Store
from train.runtime.read_ahead import read_ahead

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
        workers: Number of threads, each of which reads one part ahead; 0 reads each part when it is needed.

    Raises:
        StoreError: A tile is damaged.
    """
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        yield from read_ahead(pool, partial(_record, store), tile_parts(store, indices), workers)


def _record(store: Store, part: TilePart) -> Record:
    return store.tile(part.index).record(set(part.object_ids))
