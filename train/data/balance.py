"""Draw the images of an epoch: each tile once, or objects so that all classes come equally often.

A class that is on few tiles then comes as often as the others: its tiles come several times in an epoch. Objects of one
tile share an image where possible, so that the encoder runs once for them.

Axes: M objects of the training tiles, N images of an epoch, P objects of the fullest image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.store.store import Store

NO_OBJECT = -1
"""Fills the places of an image that has fewer objects than others."""


@dataclass(frozen=True)
class ObjectTable:
    """The objects to draw from.

    Attributes:
        tiles: Index of each object's tile, int64 (M,).
        object_ids: Id of each object, unique in its tile, int64 (M,).
        class_ids: The mask value of each object's class, int64 (M,).
    """

    tiles: NDArray[np.int64]
    object_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]

    @classmethod
    def of_tiles(cls, store: Store, tiles: NDArray[np.int64]) -> ObjectTable:
        """Return the objects of some tiles of a store."""
        names = ("tile_index", "object_id", "class_id")
        columns = [store.column(f"objects/{name}").astype(np.int64) for name in names]
        chosen = np.isin(columns[0], tiles)
        return cls(*(column[chosen] for column in columns))


@dataclass(frozen=True)
class ImageOrder:
    """The images of an epoch, in their order.

    Attributes:
        tiles: Index of each image's tile, int64 (N,).
        repeats: How often the tile came before in this epoch, int64 (N,).
        object_ids: The objects of each image, int64 (N, P), filled with `NO_OBJECT`; None if they are drawn when the
            tile is read.
    """

    tiles: NDArray[np.int64]
    repeats: NDArray[np.int64]
    object_ids: NDArray[np.int64] | None = None


def plain_images(tiles: NDArray[np.int64], images: int, generator: np.random.Generator) -> ImageOrder:
    """Cycle through all tiles in random orders until an epoch has its images.

    Args:
        tiles: Indices of the tiles, int64.
        images: Number of images of the epoch, N.
        generator: The source of all random numbers.
    """
    rounds = [generator.permutation(tiles) for _ in range(-(-images // len(tiles)))]
    order = np.concatenate(rounds)[:images]
    return ImageOrder(order, _repeats(order))


def balanced_images(table: ObjectTable, images: int, max_objects: int, generator: np.random.Generator) -> ImageOrder:
    """Draw the images of an epoch, in random order, so that all classes have the same expected number of objects.

    Every class gets equally many draws, which cycle through its objects: every object is drawn once before any is drawn
    again. Draws of the same tile and the same round share an image, up to `max_objects`. So an image never has an
    object twice. These images can be more than an epoch has, so a random part of them is taken.

    Args:
        table: The objects to draw from.
        images: Number of images of the epoch, N.
        max_objects: Largest number of objects of an image.
        generator: The source of all random numbers.
    """
    classes = np.unique(table.class_ids)
    per_class = -(-images * max_objects // len(classes))
    rounds = [_rounds(np.flatnonzero(table.class_ids == code), per_class, generator) for code in classes]
    rows, round_of = (np.concatenate(parts) for parts in zip(*rounds, strict=True))
    # Sort by tile and round; the random third key decides which objects share an image if one is too few.
    order = np.lexsort((generator.random(len(rows)), round_of, table.tiles[rows]))
    rows, round_of = rows[order], round_of[order]
    place = _place_in_run(_starts_run(table.tiles[rows], round_of))
    image_of = np.cumsum(place % max_objects == 0) - 1
    object_ids = np.full((int(image_of[-1]) + 1, max_objects), NO_OBJECT, np.int64)
    object_ids[image_of, place % max_objects] = table.object_ids[rows]
    tiles = table.tiles[rows[np.flatnonzero(place % max_objects == 0)]]
    taken = generator.permutation(len(tiles))[:images]
    return ImageOrder(tiles[taken], _repeats(tiles[taken]), object_ids[taken])


def _rounds(
    rows: NDArray[np.int64], count: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cycle through rows in random orders until `count` are drawn; return the rows and the number of their round."""
    turns = -(-count // len(rows))
    drawn = generator.permuted(np.tile(rows, (turns, 1)), axis=1).ravel()
    return drawn[:count], np.repeat(np.arange(turns), len(rows))[:count]


def _starts_run(*keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the rows at which one of the sorted keys changes."""
    starts = np.ones(len(keys[0]), bool)
    starts[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return starts


def _place_in_run(starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the place of each row within its run of equal keys, from 0."""
    index = np.arange(len(starts))
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def _repeats(tiles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each tile came before its place."""
    order = np.argsort(tiles, kind="stable")
    repeats = np.empty_like(tiles)
    repeats[order] = _place_in_run(_starts_run(tiles[order]))
    return repeats
