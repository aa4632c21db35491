"""Cut a decoded ROI into tiles, and derive the objects, the points and the rows that each adds to a store.

Axes: S pixels per side. Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from prep.config import BuildConfig
from prep.derive.components import find_components
from prep.derive.decoded_roi import DecodedRoi
from prep.derive.points import PaddedPoints, derive_points
from prep.derive.segments import (
    Segment,
    component_segments,
    instance_segments,
    label_segments,
)
from prep.derive.tiles import Tile, cut_tiles, resize_to_tile
from prep.source.discover import RoiSource
from schemas.command.stage_timer import timed
from schemas.picture.decode import LabelArray
from schemas.prompt_kinds import POINT_SETS


@dataclass(frozen=True)
class PreparedObject:
    """One object and its points.

    Attributes:
        segment: The object.
        points: Its points by the name of their set.
    """

    segment: Segment
    points: dict[str, PaddedPoints]


@dataclass(frozen=True)
class PreparedTile:
    """One tile, ready to be written.

    Attributes:
        tile: Its pixels and place.
        ignore: bool (S, S), ignored codes and padding.
        objects: Its objects, in the order of their ids.
    """

    tile: Tile
    ignore: NDArray[np.bool_]
    objects: list[PreparedObject]


def prepare_tiles(roi: RoiSource, pixels: DecodedRoi, config: BuildConfig) -> Iterator[PreparedTile]:
    """Yield the ROI's tiles with their objects, row by row.

    Args:
        roi: The ROI.
        pixels: Its pixels.
        config: The settings of the build.
    """
    merge = merger(config, pixels.labels)
    instances = pixels.instances
    left_out = config.ignore if instances is None else instances.ignored
    with timed("segments"):
        components = find_components(merge(pixels.labels), pixels.wanted) if config.objects == "component" else None
    if config.layout == "tile":
        tiles = cut_tiles(pixels.image, pixels.labels, config.size_px, config.stride_px, config.edge, pixels.scale_xy)
    else:
        tiles = iter([resize_to_tile(pixels.image, pixels.labels, config.size_px, pixels.scale_xy)])
    for number, tile in enumerate(tiles):
        codes = merge(tile.labels)
        ignore = _ignored(tile, codes, left_out) if pixels.is_labeled else np.ones(codes.shape, np.bool_)
        if np.count_nonzero(~ignore) < config.min_tissue * ignore.size:
            continue
        with timed("segments"):
            if instances is not None:
                segments = instance_segments(tile, instances, config.min_area_px)
            elif components is None:
                segments = label_segments(tile, codes, pixels.wanted, config.min_area_px)
            else:
                segments = component_segments(tile, codes, pixels.wanted, config.min_area_px, components)
        # The seed depends on the ROI and the tile, not on the order of work, so the number of workers changes nothing.
        key = [config.seed, zlib.crc32(roi.frame_id.encode()), number]
        with timed("prompts"):
            objects = list(_prepare_objects(segments, codes, ignore, config, key))
        yield PreparedTile(tile, ignore, objects)


def _ignored(tile: Tile, codes: LabelArray, ignore: Collection[int]) -> NDArray[np.bool_]:
    """Return the ignored codes and the padding of a tile, bool (S, S)."""
    ignored = ~tile.inside
    for code in ignore:
        ignored |= codes == code
    return ignored


def merger(config: BuildConfig, labels: LabelArray) -> Callable[[LabelArray], LabelArray]:
    """Return a function that replaces merged codes by the codes that they count as.

    Args:
        config: The settings of the build. Merges apply to class codes and never to the numbers of instances.
        labels: Any labels of the type that the function will be given.
    """
    if not config.merges or config.objects == "instance":
        return lambda values: values
    # The code that others are merged into may not fit the mask's own type.
    dtype = np.uint16 if max(config.merges.values()) > np.iinfo(labels.dtype).max else labels.dtype
    table = np.arange(np.iinfo(labels.dtype).max + 1).astype(dtype)
    for code, into in config.merges.items():
        if code < len(table):
            table[code] = into
    return lambda values: table[values]


def _prepare_objects(
    segments: list[Segment], codes: LabelArray, ignore: NDArray[np.bool_], config: BuildConfig, key: list[int]
) -> Iterator[PreparedObject]:
    """Yield a tile's objects with their points; objects come class by class, except for instances."""
    counted = ~ignore
    if config.objects == "instance":
        for segment in segments:
            # A negative click on a neighbor tells an instance from it, even if both have the same class.
            background = (codes != segment.object_id) & counted
            generator = np.random.default_rng([*key, segment.object_id])
            yield PreparedObject(segment, derive_points(segment, background, config.point_counts, generator))
        return
    for code, of_class in groupby(segments, key=lambda segment: segment.class_id):
        # A negative click on another component of the class lies outside the segment, but would contradict the class.
        # The background is computed class by class, since a mask of instances has as many classes as objects.
        background = (codes != code) & counted
        for segment in of_class:
            generator = np.random.default_rng([*key, segment.object_id])
            yield PreparedObject(segment, derive_points(segment, background, config.point_counts, generator))


def tile_row(roi: RoiSource, split: str, pixels: DecodedRoi, tile: Tile) -> dict[str, object]:
    """Return the row of one tile in the columns `tiles/*`, without the offset, which depends on earlier tiles."""
    return {
        "tiles/frame_id": roi.frame_id,
        "tiles/patient": roi.patient,
        "tiles/institution": roi.institution,
        "tiles/split": split,
        "tiles/origin_xy": tile.origin_xy,
        "tiles/scale_xy": tile.scale_xy,
        "tiles/roi_size_xy": pixels.size_xy,
        # The sequence's place in the store is known when it is assembled.
        "tiles/sequence": 0,
        "tiles/frame_number": roi.frame_number,
    }


def object_row(tile_number: int, item: PreparedObject) -> dict[str, object]:
    """Return the row of one object in the columns `objects/*` and `prompts/*`.

    Args:
        tile_number: The index of its tile among the ROI's tiles, from 0.
        item: The object.
    """
    segment = item.segment
    return {
        "objects/tile_index": tile_number,
        "objects/object_id": segment.object_id,
        "objects/roi_component": segment.roi_component,
        "objects/class_id": segment.class_id,
        "objects/area_px": segment.area_px,
        "objects/box_xyxy": segment.box_xyxy,
        "objects/touches_edge": segment.touches_edge,
        "objects/source_id": segment.source_id,
        "objects/track": segment.source_id,
        **{POINT_SETS[name].coords_path: points.coords for name, points in item.points.items()},
        **{POINT_SETS[name].labels_path: points.labels for name, points in item.points.items()},
    }
