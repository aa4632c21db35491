"""Check one tile of a store: derive its arrays again from its labels, and see where its points lie.

Arrays are H, W; coordinates are x, y. Axes: O objects of the tile, S pixels a side, K points.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.config import BuildConfig
from prep.derive.roi import merger
from prep.source.decode import LabelArray
from schemas.prompt_kinds import PROMPT_SOURCES, PointLabel
from schemas.record import Record
from schemas.store.store import Store


def wrong_in_tile(store: Store, record: Record, config: BuildConfig) -> Iterator[str]:
    """Yield what is wrong with a tile.

    Args:
        store: The store.
        record: The tile.
        config: The settings of the build.
    """
    inside = _inside(record)
    codes = merger(config, record.labels)(record.labels)
    if not np.array_equal(record.ignore, np.isin(codes, config.ignore) | ~inside):
        yield "its ignored pixels are not those of its labels"
    if config.layout == "resize" and not inside.all():
        yield "its scale does not make one tile of its ROI"
    yield from _wrong_segments(store, record, DerivedObjects(codes, inside, config, store))
    yield from _wrong_prompts(store, record)


def _inside(record: Record) -> NDArray[np.bool_]:
    """Bool (S, S), the pixels of a tile that lie in the ROI."""
    size = record.labels.shape[0]
    ends = [
        round(side * scale) - round(origin * scale)
        for side, scale, origin in zip(record.roi_size_xy, record.scale_xy, record.origin_xy, strict=True)
    ]
    y, x = np.ogrid[:size, :size]
    return np.asarray((x < ends[0]) & (y < ends[1]), bool)


class DerivedObjects:
    """Class id and mask, bool (S, S), of every object of a tile, derived by the shortest way and not by the builder's.

    Masks are made when they are asked for: a tile may have thousands of objects, and each mask has the tile's size.

    Args:
        codes: uint8 or uint16 (S, S), the class of each pixel.
        inside: bool (S, S), the pixels in the ROI.
        config: The settings of the build.
        store: The store, which tells the classes that became objects.
    """

    def __init__(self, codes: LabelArray, inside: NDArray[np.bool_], config: BuildConfig, store: Store) -> None:
        self._numbered: dict[int, NDArray[Any]] = {}
        self._objects: list[tuple[int, int]] = []
        for code in sorted({info.code for info in store.manifest.classes}):
            mask = (np.equal(codes, code) & inside).view(np.uint8)
            numbers = mask if config.objects == "label" else cv2.connectedComponents(mask, connectivity=8)[1]
            self._numbered[code] = np.asarray(numbers)
            sizes = np.bincount(self._numbered[code].ravel())
            kept = np.flatnonzero(sizes >= max(config.min_area_px, 1))
            self._objects.extend((code, int(number)) for number in kept if number)

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        return ((code, np.equal(self._numbered[code], number)) for code, number in self._objects)


def _wrong_segments(store: Store, record: Record, expected: DerivedObjects) -> Iterator[str]:
    if len(expected) != len(record.segments):
        yield f"it has {len(record.segments)} objects, and its labels give {len(expected)}"
        return
    rows = store.tile(record.index).object_rows
    areas, at_edge = (store.column(f"objects/{name}")[rows] for name in ("area_px", "touches_edge"))
    last = record.labels.shape[0] - 1
    for row, (segment, (class_id, mask)) in enumerate(zip(record.segments, expected, strict=True)):
        name = f"object {record.object_ids[row]}"
        if record.class_ids[row] != class_id or not np.array_equal(segment, mask):
            yield f"{name} is not the segment that its labels give"
            continue
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max(), ys.max()]
        if areas[row] != len(xs):
            yield f"{name} has area {areas[row]}, and its segment {len(xs)}"
        if record.boxes_xyxy[row].tolist() != box:
            yield f"{name} has another box than its segment"
        if at_edge[row] != (0 in box[:2] or last in box[2:]):
            yield f"{name} is said {'to touch' if at_edge[row] else 'not to touch'} the tile's edge"


def _wrong_prompts(store: Store, record: Record) -> Iterator[str]:
    segments = dict(zip(record.object_ids.tolist(), record.segments, strict=True))
    tile = store.tile(record.index)
    for kind in PROMPT_SOURCES:
        for object_id, prompt in tile.prompts(kind, negatives=store.manifest.negative_points > 0).items():
            coords, labels = prompt["point_coords"].astype(int), prompt["point_labels"]
            if not (labels > PointLabel.NEGATIVE).any():
                yield f"object {object_id} has no point for the prompt {kind}"
                continue
            on = segments[object_id][coords[:, 1], coords[:, 0]]
            ignored = record.ignore[coords[:, 1], coords[:, 0]]
            if not on[labels == PointLabel.POSITIVE].all():
                yield f"object {object_id} has a positive point off its segment"
            if (on | ignored)[labels == PointLabel.NEGATIVE].any():
                yield f"object {object_id} has a negative point on its segment or on an ignored pixel"
