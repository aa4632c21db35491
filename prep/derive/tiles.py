"""Cut a ROI into square tiles at native resolution, or resize it to one square.

Arrays are H, W; coordinates are x, y in source pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.config import Edge
from schemas.picture.decode import LabelArray

_Pixel = TypeVar("_Pixel", bound=np.generic)


@dataclass(frozen=True)
class Tile:
    """One square of a ROI.

    Attributes:
        origin_xy: x, y of its top-left pixel in the ROI, in source pixels.
        scale_xy: Tile pixels for each source pixel along x and y.
        image: uint8 (S, S, 3), RGB; 0 in the padding.
        labels: uint8 or uint16 (S, S), the values of the mask; 0 in the padding.
        inside: bool (S, S), false in the padding beyond the ROI's edge.
        columns: int64 (S,), the ROI's column under each column of the tile; -1 in the padding.
        rows: int64 (S,), the ROI's row under each row of the tile; -1 in the padding.
    """

    origin_xy: tuple[int, int]
    scale_xy: tuple[float, float]
    image: NDArray[np.uint8]
    labels: LabelArray
    inside: NDArray[np.bool_]
    columns: NDArray[np.int64]
    rows: NDArray[np.int64]


def tile_starts(length_px: int, size_px: int, stride_px: int, edge: Edge = "shift") -> list[int]:
    """List where tiles start along one axis, so that every pixel is in a tile.

    With `shift`, the last tile is moved back inside the ROI, so each tile is full of tissue and the last two overlap
    more. Only an axis shorter than a tile is padded. With `pad`, the last tile extends beyond the ROI.

    Args:
        length_px: Length of the axis in pixels.
        size_px: S.
        stride_px: Step between tiles in pixels.
        edge: `shift` or `pad`.
    """
    last = max(length_px - size_px, 0)
    if edge == "pad":
        return list(range(0, last + stride_px, stride_px))
    return [*range(0, last, stride_px), last]


def cut_tiles(
    image: NDArray[np.uint8],
    labels: LabelArray,
    size_px: int,
    stride_px: int,
    edge: Edge = "shift",
    scale_xy: tuple[float, float] = (1.0, 1.0),
) -> Iterator[Tile]:
    """Yield the tiles of a ROI row by row.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 or uint16 (H, W), the values of the mask.
        size_px: S, the side of a tile in pixels.
        stride_px: Step between tiles in pixels, at most S.
        edge: Whether the last row and column are shifted inside the ROI or padded beyond it.
        scale_xy: Pixels of both arrays for each source pixel, along x and y.
    """
    height, width = labels.shape
    for y in tile_starts(height, size_px, stride_px, edge):
        for x in tile_starts(width, size_px, stride_px, edge):
            columns, rows = _covered(x, width, size_px), _covered(y, height, size_px)
            window = (slice(y, y + size_px), slice(x, x + size_px))
            yield Tile(
                (round(x / scale_xy[0]), round(y / scale_xy[1])),
                scale_xy,
                _padded(image[window], size_px),
                _padded(labels[window], size_px),
                (rows >= 0)[:, None] & (columns >= 0)[None, :],
                columns,
                rows,
            )


def resample(
    image: NDArray[np.uint8], labels: LabelArray, factor: float
) -> tuple[NDArray[np.uint8], LabelArray, tuple[float, float]]:
    """Shrink a ROI: the image by pixel area, the labels by the nearest pixel center.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 or uint16 (H, W), the values of the mask.
        factor: New pixels for each old one, at most 1.

    Returns:
        The image, the labels, and the exact factors along x and y after the size is rounded to whole pixels.
    """
    height, width = labels.shape
    new_width, new_height = max(round(width * factor), 1), max(round(height * factor), 1)
    resized, columns, rows = _resized(image, new_width, new_height)
    return resized, labels[np.ix_(rows, columns)], (new_width / width, new_height / height)


def resize_to_tile(
    image: NDArray[np.uint8], labels: LabelArray, size_px: int, scale_xy: tuple[float, float] = (1.0, 1.0)
) -> Tile:
    """Resize a whole ROI to one square: the image by pixel area, or bilinearly if it grows; labels by nearest center.

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: uint8 or uint16 (H, W), the values of the mask.
        size_px: S, the side of the square in pixels; width and height have different factors if the ROI is not square.
        scale_xy: Pixels of both arrays for each source pixel, along x and y.
    """
    height, width = labels.shape
    resized, columns, rows = _resized(image, size_px, size_px)
    return Tile(
        (0, 0),
        (scale_xy[0] * size_px / width, scale_xy[1] * size_px / height),
        resized,
        labels[np.ix_(rows, columns)],
        np.ones((size_px, size_px), bool),
        columns,
        rows,
    )


def _resized(
    image: NDArray[np.uint8], width: int, height: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Resize an image; also return the old column and row under each new pixel center."""
    old_height, old_width = image.shape[:2]
    shrinks = old_height >= height and old_width >= width
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    # The center of new pixel i lies at (i + 1/2) / scale in the old image, in the old pixel that this rounds down to.
    columns = (2 * np.arange(width) + 1) * old_width // (2 * width)
    rows = (2 * np.arange(height) + 1) * old_height // (2 * height)
    return np.asarray(resized, np.uint8), columns, rows


def _covered(start: int, length_px: int, size_px: int) -> NDArray[np.int64]:
    positions = np.arange(start, start + size_px)
    return np.where(positions < length_px, positions, -1)


def _padded(window: NDArray[_Pixel], size_px: int) -> NDArray[_Pixel]:
    missing = [(0, size_px - length) for length in window.shape[:2]] + [(0, 0)] * (window.ndim - 2)
    return np.pad(window, missing) if any(after for _, after in missing) else np.ascontiguousarray(window)
