"""Turn a tile's labels into binary segments: one for each class, each connected component, or each instance.

Arrays are H, W; boxes are x, y with inclusive pixel indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.derive.components import Components, find_components
from prep.derive.tiles import Tile
from prep.source.instances import Instances
from schemas.bits import pack_mask
from schemas.picture.decode import LabelArray

NO_COMPONENT = 0
"""Value of `roi_component` for an object that may have several components."""


@dataclass(frozen=True)
class Segment:
    """One object of a tile.

    Attributes:
        crop: bool (height, width of the box), its mask inside its box. A mask of the whole tile would take too much
            memory, since a tile may have hundreds of small objects.
        tile_shape: H and W of the tile in pixels.
        object_id: Its id, unique in the tile: the class, the component's number in the tile from 1, or the number of
            the instance in the ROI.
        class_id: Its class.
        roi_component: The number of the component or instance in the whole ROI, counted from 1, or `NO_COMPONENT`.
        box_xyxy: Left, top, right and bottom, inclusive pixel indices.
        area_px: Number of pixels.
        source_id: The pixel value of an instance in its mask file; 0 for other objects.
    """

    crop: NDArray[np.bool_]
    tile_shape: tuple[int, int]
    object_id: int
    class_id: int
    roi_component: int
    box_xyxy: tuple[int, int, int, int]
    area_px: int
    source_id: int = 0

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Its mask, bool (S, S)."""
        left, top, right, bottom = self.box_xyxy
        mask = np.zeros(self.tile_shape, bool)
        mask[top : bottom + 1, left : right + 1] = self.crop
        return mask

    @property
    def packed(self) -> NDArray[np.uint8]:
        """Its mask as `schemas.bits.pack_mask` packs it, uint8 (S, S/8); only its box is packed, the rest is 0."""
        left, top, right, bottom = self.box_xyxy
        first, last = left // 8, right // 8 + 1
        crop = np.zeros((len(self.crop), 8 * (last - first)), bool)
        crop[:, left - 8 * first : right + 1 - 8 * first] = self.crop
        packed = np.zeros((self.tile_shape[0], self.tile_shape[1] // 8), np.uint8)
        packed[top : bottom + 1, first:last] = pack_mask(crop)
        return packed

    @property
    def touches_edge(self) -> bool:
        """Whether it reaches the tile's edge, beyond which it may continue."""
        left, top, right, bottom = self.box_xyxy
        height, width = self.tile_shape
        return left == 0 or top == 0 or right == width - 1 or bottom == height - 1


def present_codes(labels: LabelArray, where: NDArray[np.bool_] | None = None) -> list[int]:
    """List the pixel values that occur, in ascending order.

    Args:
        labels: uint8 or uint16 (H, W).
        where: bool (H, W), the pixels to look at; None looks at all.
    """
    return [int(code) for code in np.flatnonzero(_histogram(labels, where))]


def pixel_counts(labels: LabelArray) -> dict[int, int]:
    """Count the pixels of each value that occurs.

    Args:
        labels: uint8 or uint16 (H, W).
    """
    # OpenCV counts in float32, which is exact up to 2^24.
    rows = max((1 << 24) // labels.shape[1], 1)
    strips = [_histogram(labels[start : start + rows]) for start in range(0, len(labels), rows)]
    counts = np.sum(np.stack(strips).astype(np.int64), axis=0)
    return {int(code): int(counts[code]) for code in np.flatnonzero(counts)}


def _histogram(labels: LabelArray, where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Number of pixels of each possible value."""
    chosen = None if where is None else where.view(np.uint8)
    bins = int(np.iinfo(labels.dtype).max) + 1
    # This is about thirty times as fast as bincount, which converts every pixel to a wider type first.
    return np.asarray(cv2.calcHist([np.asarray(labels)], [0], chosen, [bins], [0, bins]), np.float32).ravel()


def label_segments(tile: Tile, codes: LabelArray, classes: frozenset[int], min_area_px: int) -> list[Segment]:
    """Make one segment for each selected class of the tile, by ascending code.

    Args:
        tile: The tile.
        codes: uint8 or uint16 (S, S), the class of each pixel: its label, after merges.
        classes: The codes that become objects.
        min_area_px: Minimum area of an object in pixels.
    """
    segments: list[Segment] = []
    for code in present_codes(codes):
        if code in classes:
            mask = (codes == code) & tile.inside
            area = int(np.count_nonzero(mask))
            if area >= max(min_area_px, 1):
                box = _box(mask)
                # Copy the crop, because a view would keep the mask of the whole tile in memory.
                crop = mask[box[1] : box[3] + 1, box[0] : box[2] + 1].copy()
                segments.append(Segment(crop, mask.shape, code, code, NO_COMPONENT, box, area))
    return segments


def component_segments(
    tile: Tile, codes: LabelArray, classes: frozenset[int], min_area_px: int, of_roi: Components
) -> list[Segment]:
    """Make one segment for each 8-connected component of the tile, in the order of `prep.derive.components`.

    Args:
        tile: The tile.
        codes: uint8 or uint16 (S, S), the class of each pixel.
        classes: The codes that become objects.
        min_area_px: Minimum area of an object in pixels.
        of_roi: The components of the whole ROI.
    """
    # The padding lies behind the last row and column.
    height, width = (np.count_nonzero(places >= 0) for places in (tile.rows, tile.columns))
    found = find_components(codes[:height, :width], classes)
    numbered = found.numbered()
    x, y = found.first_xy.T
    roi_numbers = of_roi.at(tile.columns[x], tile.rows[y])
    segments: list[Segment] = []
    for index in np.flatnonzero(found.area_px >= min_area_px):
        left, top, right, bottom = (int(side) for side in found.box_xyxy[index])
        crop = numbered[top : bottom + 1, left : right + 1] == index + 1
        code, number, area = int(found.codes[index]), int(roi_numbers[index]), int(found.area_px[index])
        segments.append(Segment(crop, codes.shape, len(segments) + 1, code, number, (left, top, right, bottom), area))
    return segments


def instance_segments(tile: Tile, instances: Instances, min_area_px: int) -> list[Segment]:
    """Make one segment for each instance of the tile, by ascending number.

    Args:
        tile: The tile; its labels are numbers of instances.
        instances: Classes and ids of the instances of the ROI.
        min_area_px: Minimum area of an object in pixels.
    """
    # Only builds of instances need SciPy, which takes a third of a second to import.
    from scipy.ndimage import find_objects  # pyright: ignore[reportUnknownVariableType]

    ids = np.where(tile.inside, tile.labels, tile.labels.dtype.type(0))
    segments: list[Segment] = []
    places = cast("list[tuple[slice, slice] | None]", find_objects(ids))
    for number, place in enumerate(places, start=1):
        if place is None or number in instances.ignored:
            continue
        crop = np.equal(ids[place], number)
        area = int(np.count_nonzero(crop))
        if area >= max(min_area_px, 1):
            rows, columns = place
            box = (int(columns.start), int(rows.start), int(columns.stop) - 1, int(rows.stop) - 1)
            source = instances.source_ids[number]
            segments.append(Segment(crop, ids.shape, number, instances.class_of[number], number, box, area, source))
    return segments


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, left + width - 1, top + height - 1
