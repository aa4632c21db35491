"""Check one tile of a store: derive its arrays again from its labels, and check where its points lie.

Arrays are H, W; coordinates are x, y. Axes: O objects of the tile, S pixels per side, K points.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.config import BuildConfig
from prep.derive.prepared_tile import merger
from schemas.picture.decode import LabelArray
from schemas.prompt_kinds import PROMPT_SOURCES, PointLabel, PromptKind
from schemas.record import Record
from schemas.store.store import Store
from schemas.store.tile import Tile

GROUP_BYTES = 1 << 27
"""Maximum size of the segments that are compared at once, because a tile may have thousands of segments."""


def wrong_in_tile(tile: Tile, config: BuildConfig) -> Iterator[str]:
    """Yield what is wrong with a tile.

    Args:
        tile: The tile.
        config: The settings of the build.
    """
    record = tile.record(())
    inside = _inside(record)
    codes = merger(config, record.labels)(record.labels)
    is_labeled = tile.store.source(record.frame_id).mask is not None
    ignored = _ignored_instances(record, codes, inside, config) if config.objects == "instance" else config.ignore
    if not np.array_equal(record.ignore, np.isin(codes, list(ignored)) | ~inside | (not is_labeled)):
        yield "its ignored pixels do not follow from its labels"
    if config.layout == "resize" and not inside.all():
        yield "its scale does not make one tile of its ROI"
    counted = ~record.ignore if config.objects == "instance" else inside
    expected = DerivedObjects(codes, counted, config, tile.store)
    if len(expected) != len(tile.classes):
        yield f"it has {len(tile.classes)} objects, and its labels give {len(expected)}"
        return
    derived = iter(expected)
    for group in tile.object_groups(GROUP_BYTES):
        segments = dict(zip(group, tile.segments(group), strict=True))
        yield from _wrong_segments(tile, segments, derived)
        yield from _wrong_prompts(tile, segments, record.ignore)


def _inside(record: Record) -> NDArray[np.bool_]:
    """Bool (S, S), the pixels of a tile that lie in the ROI."""
    size = record.labels.shape[0]
    ends = [
        round(side * scale) - round(origin * scale)
        for side, scale, origin in zip(record.roi_size_xy, record.scale_xy, record.origin_xy, strict=True)
    ]
    y, x = np.ogrid[:size, :size]
    return np.asarray((x < ends[0]) & (y < ends[1]), bool)


def _ignored_instances(
    record: Record, codes: LabelArray, inside: NDArray[np.bool_], config: BuildConfig
) -> Collection[int]:
    """Return the values of a mask of instances that must be ignored in the whole tile.

    The labels do not give the class of an instance, so an instance with one ignored pixel counts as ignored. In
    sequences, the settings name the values.
    """
    if config.sequences or not config.ignore:
        return config.ignore
    return [number for number in np.unique(codes[record.ignore & inside]).tolist() if number]


ANY_CLASS = -1
"""Stands for the class of an instance, which the labels alone do not tell."""


class DerivedObjects:
    """Class id and mask, bool (S, S), of every object of a tile, derived by simple code that a build does not use.

    Masks are made only when they are needed: a tile may have thousands of objects, and each mask has the tile's size.

    Args:
        codes: uint8 or uint16 (S, S), the class of each pixel.
        counted: bool (S, S), the pixels in the ROI; for instances without the ignored ones.
        config: The settings of the build.
        store: The store, which tells the classes that became objects.
    """

    def __init__(self, codes: LabelArray, counted: NDArray[np.bool_], config: BuildConfig, store: Store) -> None:
        self._numbered: dict[int, NDArray[Any]] = {}
        self._objects: list[tuple[int, int]] = []
        if config.objects == "instance":
            self._add_instances(np.where(counted, codes, 0), config.min_area_px)
            return
        for code in sorted({info.code for info in store.manifest.classes}):
            mask = (np.equal(codes, code) & counted).view(np.uint8)
            numbers = mask if config.objects == "label" else cv2.connectedComponents(mask, connectivity=8)[1]
            self._numbered[code] = np.asarray(numbers)
            sizes = np.bincount(self._numbered[code].ravel())
            kept = np.flatnonzero(sizes >= max(config.min_area_px, 1))
            self._objects.extend((code, int(number)) for number in kept if number)

    def _add_instances(self, ids: NDArray[Any], min_area_px: int) -> None:
        """Add each value except 0 as an object. Labels do not give its class, which `verify_store` compares."""
        sizes = np.bincount(ids.ravel())
        self._numbered[ANY_CLASS] = ids
        kept = np.flatnonzero(sizes >= max(min_area_px, 1)).tolist()
        self._objects.extend((ANY_CLASS, number) for number in kept if number)

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        return ((code, np.equal(self._numbered[code], number)) for code, number in self._objects)


def _wrong_segments(
    tile: Tile, segments: dict[int, NDArray[np.bool_]], derived: Iterator[tuple[int, NDArray[np.bool_]]]
) -> Iterator[str]:
    """Compare some segments with the next segments derived from the labels."""
    of_tile = {
        name: dict(zip(tile.classes, tile.store.column(f"objects/{name}")[tile.object_rows].tolist(), strict=True))
        for name in ("area_px", "touches_edge", "box_xyxy")
    }
    last = tile.store.manifest.tile_size_px - 1
    for (object_id, segment), (class_id, mask) in zip(segments.items(), derived, strict=False):
        name = f"object {object_id}"
        if class_id not in (ANY_CLASS, tile.classes[object_id]) or not np.array_equal(segment, mask):
            yield f"{name} is not the segment that its labels give"
            continue
        xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        box, area = [int(xs[0]), int(ys[0]), int(xs[-1]), int(ys[-1])], int(np.count_nonzero(mask))
        if tile.tracks and tile.tracks[object_id] != tile.labels[ys[0], np.argmax(mask[ys[0]])]:
            yield f"{name} has track {tile.tracks[object_id]}, but its pixels have another value"
        stored = {key: values[object_id] for key, values in of_tile.items()}
        if stored["area_px"] != area:
            yield f"{name} has area {stored['area_px']}, and its segment {area}"
        if stored["box_xyxy"] != box:
            yield f"{name} has a box that does not fit its segment"
        if stored["touches_edge"] != (0 in box[:2] or last in box[2:]):
            yield f"{name} is recorded as {'touching' if stored['touches_edge'] else 'not touching'} the tile's edge"


def _wrong_prompts(tile: Tile, segments: dict[int, NDArray[np.bool_]], ignore: NDArray[np.bool_]) -> Iterator[str]:
    stored = tile.store.point_sets
    # A store that was built before a kind was added lacks the kind's points.
    kinds: list[PromptKind] = [
        kind for kind, source in PROMPT_SOURCES.items() if all(points.name in stored for points in source.point_sets)
    ]
    for kind in kinds:
        prompts = tile.prompts(kind, segments, negatives=tile.store.manifest.negative_points > 0)
        for object_id, prompt in prompts.items():
            coords, labels = prompt["point_coords"].astype(int), prompt["point_labels"]
            if not (labels > PointLabel.NEGATIVE).any():
                yield f"object {object_id} has no point for the prompt {kind}"
                continue
            on = segments[object_id][coords[:, 1], coords[:, 0]]
            ignored = ignore[coords[:, 1], coords[:, 0]]
            if not on[labels == PointLabel.POSITIVE].all():
                yield f"object {object_id} has a positive point outside its segment"
            if (on | ignored)[labels == PointLabel.NEGATIVE].any():
                yield f"object {object_id} has a negative point on its segment or on an ignored pixel"
