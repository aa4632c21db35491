"""Choose which pixels and objects of overlapping tiles are scored, so that none of them counts twice.

Tiles overlap if the size of a ROI is not a multiple of the tile size, or if the stride is smaller than the tile. If an
object is the whole area of a class in its tile, it is scored on the pixels that the tile owns: those that are nearer to
the center of this tile than to the center of any other. If an object is a connected component, it is scored as a whole,
in the tile that shows most of it.

Axes: O objects of a tile, S pixels per side, n objects of the store. Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from schemas.record import Record
from schemas.store.store import Store


class ScoredOnce:
    """Assigns every pixel and every component to one of the tiles that show it.

    Args:
        store: The store.
        tiles: Indices of all tiles that are scored.
    """

    def __init__(self, store: Store, tiles: Sequence[int] | NDArray[np.int64]) -> None:
        self._store = store
        self._tiles = np.asarray(tiles, np.int64)
        self._rois = store.column("tiles/frame_id")[self._tiles]
        size_xy = store.manifest.tile_size_px / store.column("tiles/scale_xy")[self._tiles].astype(float)
        self._starts_xy = store.column("tiles/origin_xy")[self._tiles].astype(float)
        self._ends_xy = self._starts_xy + size_xy
        self._has_components = bool(store.column("objects/roi_component").any())
        self._is_kept = self._kept_rows()

    def owned(self, record: Record) -> NDArray[np.bool_]:
        """Return the pixels of a tile that are scored there, bool (S, S)."""
        own = int(np.flatnonzero(self._tiles == record.index)[0])
        start, end = self._starts_xy[own], self._ends_xy[own]
        meets = (self._starts_xy < end).all(1) & (self._ends_xy > start).all(1) & (self._rois == self._rois[own])
        size = record.ignore.shape[0]
        x, y = (origin + (np.arange(size) + 0.5) / scale for origin, scale in zip(start, record.scale_xy, strict=True))
        mine = _distance(x, y, (start + end) / 2)
        owned = np.ones((size, size), bool)
        for other in np.flatnonzero(meets):
            if other != own:
                left, top, right, bottom = *self._starts_xy[other], *self._ends_xy[other]
                inside = ((y > top) & (y < bottom))[:, None] & (x > left) & (x < right)
                theirs = _distance(x, y, (self._starts_xy[other] + self._ends_xy[other]) / 2)
                # If both are equally near, the first in the store owns the pixel.
                owned &= ~inside | (mine < theirs if self._tiles[other] < record.index else mine <= theirs)
        return owned

    def counted(self, record: Record) -> Record:
        """Return a copy of a tile that ignores pixels scored in other tiles; with components, return the tile."""
        if self._has_components:
            return record
        return replace(record, ignore=record.ignore | ~self.owned(record))

    def kept(self, counted: Record) -> NDArray[np.bool_]:
        """Return which objects of a tile from `counted` are scored, bool (O,)."""
        rows = self._store.tile(counted.index).object_rows
        ids = self._store.column("objects/object_id")[rows].tolist()
        kept = dict(zip(ids, self._is_kept[rows].tolist(), strict=True))
        chosen = np.array([kept[object_id] for object_id in counted.object_ids.tolist()], bool)
        if self._has_components:
            return chosen
        return chosen & (counted.segments & ~counted.ignore).any((1, 2))

    def _kept_rows(self) -> NDArray[np.bool_]:
        """Return for each object of the store whether it is scored, bool (n,).

        If two tiles show the same part of a component, the boxes of its two objects overlap. The largest object of each
        component is kept, and then every smaller one whose box overlaps no kept box of another tile. Objects of one
        tile share no pixel, even if their boxes overlap.
        """
        column = self._store.column
        kept = np.ones(len(column("objects/tile_index")), bool)
        place_of = np.full(len(self._store), -1)
        place_of[self._tiles] = np.arange(len(self._tiles))
        places, components = place_of[column("objects/tile_index")], column("objects/roi_component")
        rows = np.flatnonzero((places >= 0) & (components > 0))
        if not len(rows):
            return kept
        roi_numbers = np.unique(self._rois, return_inverse=True)[1]
        areas = column("objects/area_px")[rows].astype(np.int64)
        order = rows[np.lexsort((-areas, components[rows], roi_numbers[places[rows]]))]
        keys = np.column_stack((roi_numbers[places[order]], components[order]))
        starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(1)])
        boxes = self._boxes_in_roi(order, places)
        ends = np.r_[starts[1:], len(order)]
        repeated = ends - starts > 1
        for start, end in zip(starts[repeated].tolist(), ends[repeated].tolist(), strict=True):
            taken: list[int] = []
            for place in range(start, end):
                tile = places[order[place]]
                if any(places[order[k]] != tile and _overlap(boxes[place], boxes[k]) for k in taken):
                    kept[order[place]] = False
                else:
                    taken.append(place)
        return kept

    def _boxes_in_roi(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return left, top, right and bottom of objects in source pixels of the ROI, right and bottom exclusive."""
        boxes = self._store.column("objects/box_xyxy")[rows].astype(float) + np.array([0, 0, 1, 1])
        own = places[rows]
        scale = self._store.column("tiles/scale_xy")[self._tiles[own]].astype(float)
        return boxes / np.tile(scale, 2) + np.tile(self._starts_xy[own], 2)


def _distance(x: NDArray[np.float64], y: NDArray[np.float64], center_xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the larger of the distances along x and y from a center to each pixel, (H, W)."""
    return np.maximum(np.abs(x - center_xy[0]), np.abs(y - center_xy[1])[:, None])


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    return bool((first[:2] < second[2:]).all() and (second[:2] < first[2:]).all())
