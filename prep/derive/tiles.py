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
from prep.source.decode import LabelArray

_Pixel = TypeVar("_Pixel", bound=np.generic)


@dataclass(frozen=True)
class Tile:
    """One square of a ROI.

    Attributes:
        origin_xy: x, y of its top-left pixel in the ROI, in source pixels.
        scale_xy: Tile pixels a source pixel.
        image: uint8 (S, S, 3).
        labels: uint8 or uint16 (S, S); 0 where the ROI ends.
        inside: bool (S, S), false in the padding beyond the ROI's edge.
        columns: int (S,), the ROI's column under each pixel; -1 in the padding.
        rows: int (S,), the ROI's row under each pixel; -1 in the padding.
    """

    origin_xy: tuple[int, int]
    scale_xy: tuple[float, float]
    image: NDArray[np.uint8]
    labels: LabelArray
    inside: NDArray[np.bool_]
    columns: NDArray[np.int64]
    rows: NDArray[np.int64]


def tile_starts(length_px: int, size_px: int, stride_px: int, edge: Edge = "shift") -> list[int]:
    """Starts of tiles along one axis, so that every pixel is in a tile.

    The last tile is shifted back inside instead of padded: each tile is then full of tissue, at the price of a
    wider overlap. Only an axis shorter than a tile is padded.
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
        image: uint8 (H, W, 3).
        labels: uint8 or uint16 (H, W).
        size_px: S.
        stride_px: Step between tiles, at most S.
        edge: Whether the last row and column are shifted inside the ROI or padded beyond it.
        scale_xy: By how much both arrays were scaled before.
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
    """Shrink a ROI: RGB by area, labels by nearest pixel centre.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 or uint16 (H, W).
        factor: New pixels an old one, at most 1.

    Returns:
        Image, labels, and the exact factor of x and y after rounding to whole pixels.
    """
    height, width = labels.shape
    new_width, new_height = max(round(width * factor), 1), max(round(height * factor), 1)
    resized, columns, rows = _resized(image, new_width, new_height)
    return resized, labels[np.ix_(rows, columns)], (new_width / width, new_height / height)


def resize_to_tile(
    image: NDArray[np.uint8], labels: LabelArray, size_px: int, scale_xy: tuple[float, float] = (1.0, 1.0)
) -> Tile:
    """Resize a whole ROI to one square: RGB by area (bilinear where it grows), labels by nearest pixel centre.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 or uint16 (H, W).
        size_px: S; width and height are scaled each by its own factor.
        scale_xy: By how much both arrays were scaled before.
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
    """Resize an image; also give the source's column and row under each new pixel centre."""
    old_height, old_width = image.shape[:2]
    shrinks = old_height >= height and old_width >= width
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    # The centre of new pixel i lies at (i + 1/2) / scale of the source, in source pixel floor of that.
    columns = (2 * np.arange(width) + 1) * old_width // (2 * width)
    rows = (2 * np.arange(height) + 1) * old_height // (2 * height)
    return np.asarray(resized, np.uint8), columns, rows


def _covered(start: int, length_px: int, size_px: int) -> NDArray[np.int64]:
    positions = np.arange(start, start + size_px)
    return np.where(positions < length_px, positions, -1)


def _padded(window: NDArray[_Pixel], size_px: int) -> NDArray[_Pixel]:
    missing = [(0, size_px - length) for length in window.shape[:2]] + [(0, 0)] * (window.ndim - 2)
    return np.pad(window, missing) if any(after for _, after in missing) else np.ascontiguousarray(window)
