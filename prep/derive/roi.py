"""Prepare one ROI: decode it, cut it into tiles, and derive the rows that it adds to a store.

Axes: N tiles, M objects of this ROI, S pixels per side. Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prep.config import ALL_CLASSES, BuildConfig
from prep.derive.components import find_components
from prep.derive.points import PaddedPoints, derive_points
from prep.derive.rims import rim_classes
from prep.derive.segments import (
    Segment,
    component_segments,
    instance_segments,
    label_segments,
    pixel_counts,
)
from prep.derive.tiles import Tile, cut_tiles, resample, resize_to_tile
from prep.source.colors import read_labels
from prep.source.discover import RoiSource, size_mismatch
from prep.source.instances import (
    ONE_CLASS,
    Instances,
    class_of_instances,
    listed_classes,
    read_instances,
    read_tracks,
)
from schemas.command.stage_timer import timed
from schemas.errors import SourceError
from schemas.picture.decode import LabelArray, image_header, read_image
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


@dataclass(frozen=True)
class DecodedRoi:
    """The pixels of a ROI.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 or uint16 (H, W), the values of the mask; for a mask of instances, the numbers of the instances,
            and 0 for instances of classes that are not wanted.
        wanted: The codes in the ROI, after merges, that become objects.
        size_xy: Width and height of the files in pixels.
        scale_xy: Pixels of these arrays for each pixel of the files, along x and y.
        rims: Number of pixels of each code that looks like a blend of two others; see `prep.derive.rims`.
        recolored_px: Number of pixels whose color belongs to no class, and that got the class of the nearest color.
        instances: Classes and ids of the instances; None for masks of classes.
        class_px: Number of pixels of each wanted class in the files.
        is_labeled: Whether there is a mask; without one, all labels are 0 and all pixels are ignored.
    """

    image: NDArray[np.uint8]
    labels: LabelArray
    wanted: frozenset[int]
    size_xy: tuple[int, int]
    scale_xy: tuple[float, float]
    rims: dict[int, int]
    recolored_px: int = 0
    instances: Instances | None = None
    class_px: dict[int, int] = field(default_factory=dict[int, int])
    is_labeled: bool = True


def decode_roi(roi: RoiSource, config: BuildConfig) -> DecodedRoi:
    """Decode both files, and check their sizes and the codes of the mask.

    Raises:
        SourceError: A file is damaged, their sizes differ, or the mask contains an unknown code.
    """
    instances, recolored_px, rims, counts = None, 0, dict[int, int](), None
    if roi.mask_path is None:
        width, height = image_header(roi.image_path).size
        instances = Instances(np.zeros((height, width), np.uint8), {}, {})
        labels, present = instances.ids, []
    elif config.objects == "instance":
        instances = _read_instances(roi, roi.mask_path, config)
        labels, present = instances.ids, sorted(set(instances.class_of.values()))
    else:
        labels, recolored_px = read_labels(roi.mask_path, config.colors, nearest=config.nearest_color)
        counts = pixel_counts(labels)
        present = list(counts)
        _check_codes(roi.mask_path, present, config)
        rims = rim_classes(labels, present)
    image = read_image(roi.image_path)
    if image.shape[:2] != labels.shape:
        image_size, mask_size = (image.shape[1], image.shape[0]), (labels.shape[1], labels.shape[0])
        raise size_mismatch(roi.labels_path, roi.image_path, mask_size, image_size)
    size_xy, scale_xy = (labels.shape[1], labels.shape[0]), (1.0, 1.0)
    class_of = instances.class_of if instances else {code: config.merges.get(code, code) for code in present}
    wanted = config.wanted(sorted(set(class_of.values())))
    class_px = _class_px(counts or pixel_counts(labels), class_of, wanted)
    if config.mpp_um is not None:
        image, labels, scale_xy = resample(image, labels, _scale_to(roi, config.mpp_um))
    has_mask = roi.mask_path is not None
    return DecodedRoi(image, labels, wanted, size_xy, scale_xy, rims, recolored_px, instances, class_px, has_mask)


def _class_px(counts: dict[int, int], class_of: dict[int, int], wanted: frozenset[int]) -> dict[int, int]:
    """Return the number of pixels of each wanted class, given the pixel count and the class of each value."""
    found = dict.fromkeys(sorted(wanted), 0)
    for value, code in class_of.items():
        if code in wanted:
            found[code] += counts.get(value, 0)
    return found


def _read_instances(roi: RoiSource, path: Path, config: BuildConfig) -> Instances:
    """Read the instances with their classes; instances of classes that are not wanted become background."""
    ids, source_ids = read_tracks(path, config.ignore) if roi.sequence else read_instances(path)
    if roi.class_mask_path is not None:
        classes, _ = read_labels(roi.class_mask_path, config.colors, nearest=config.nearest_color)
        if classes.shape != ids.shape:
            class_size, id_size = (classes.shape[1], classes.shape[0]), (ids.shape[1], ids.shape[0])
            raise size_mismatch(roi.class_mask_path, roi.image_path, class_size, id_size)
        class_of = class_of_instances(roi.class_mask_path, ids, classes, source_ids)
    elif config.instance_classes:
        table = {(frame_id, value): code for frame_id, value, code in config.instance_classes}
        class_of = listed_classes(path, roi.sequence or roi.frame_id, source_ids, table)
    else:
        one = ONE_CLASS if config.classes == ALL_CLASSES else config.classes[0]
        class_of = dict.fromkeys(source_ids, one)
    present = sorted(set(class_of.values()))
    _check_codes(path, present, config)
    class_of = {number: config.merges.get(code, code) for number, code in class_of.items()}
    wanted = config.wanted(sorted(set(class_of.values())))
    left_out = [number for number, code in class_of.items() if code not in wanted]
    if left_out:
        is_left_out = np.isin(np.arange(int(ids.max()) + 1), left_out)
        ids = np.where(is_left_out[ids], ids.dtype.type(0), ids)
    return Instances(ids, class_of, source_ids)


def _scale_to(roi: RoiSource, mpp_um: float) -> float:
    """Return the factor that shrinks a ROI to a resolution; enlarging is an error, since it would invent pixels."""
    if roi.mpp_um is None:
        raise SourceError(
            roi.image_path, "has no resolution in its name", "name it like ..._MPP-0.2500, or leave out --mpp"
        )
    if mpp_um < roi.mpp_um * 0.999:
        raise SourceError(
            roi.image_path,
            f"has {roi.mpp_um} um per pixel, coarser than --mpp {mpp_um}",
            f"give --mpp {roi.mpp_um} or more",
        )
    return min(roi.mpp_um / mpp_um, 1.0)


def prepare_tiles(roi: RoiSource, pixels: DecodedRoi, config: BuildConfig) -> Iterator[PreparedTile]:
    """Yield the ROI's tiles with their objects, row by row.

    Args:
        roi: The ROI.
        pixels: Its pixels.
        config: The settings of the build.
    """
    merge = merger(config, pixels.labels)
    instances = pixels.instances
    with timed("segments"):
        components = find_components(merge(pixels.labels), pixels.wanted) if config.objects == "component" else None
    if config.layout == "tile":
        tiles = cut_tiles(pixels.image, pixels.labels, config.size_px, config.stride_px, config.edge, pixels.scale_xy)
    else:
        tiles = iter([resize_to_tile(pixels.image, pixels.labels, config.size_px, pixels.scale_xy)])
    for number, tile in enumerate(tiles):
        codes = merge(tile.labels)
        ignore = _ignored(tile, codes, config) if pixels.is_labeled else np.ones(codes.shape, np.bool_)
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


def _ignored(tile: Tile, codes: LabelArray, config: BuildConfig) -> NDArray[np.bool_]:
    """Return the ignored codes and the padding of a tile, bool (S, S)."""
    ignored = ~tile.inside
    for code in config.ignore:
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


def _check_codes(path: Path, present: list[int], config: BuildConfig) -> None:
    if config.classes == ALL_CLASSES:
        return
    known = config.known_codes()
    unknown = [code for code in present if code not in known]
    if unknown:
        codes = ", ".join(str(code) for code in unknown)
        raise SourceError(
            path,
            f"contains unknown class code {codes}",
            "name it in --classes, --ignore or --class-map, or take every code with --classes all",
        )
