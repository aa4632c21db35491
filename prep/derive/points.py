"""Derive every stored prompt of one object from its segment.

`DERIVATIONS` has one function for each set of points in `schemas.prompt_kinds`.
Axes: P positive points, Q negative points. Coordinates are x, y of pixel centers; arrays are H, W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.derive.segments import Segment
from schemas.prompt_kinds import INTERIOR, NEGATIVE, POINT_SETS, POSITIVE, PointCounts, PointLabel

WINDOW_PX = 256
"""Approximate side of the grid on which distances are measured; a larger object is sampled at every n-th pixel."""

MAX_CANDIDATES = 2048
"""Maximum number of pixels among which points are chosen: enough for an even spread, few enough to be quick."""

BORDER_MARGIN_PX = 8.0
"""Minimum distance of a positive point from the border of its connected part, or half of the part's depth if less."""

NEAR_PX = (3.0, 48.0)
"""Minimum and maximum distance of a negative point from the segment, if there is room."""


@dataclass(frozen=True)
class PaddedPoints:
    """One set of points of one object, padded with (0, 0) and label -1.

    Attributes:
        coords: float32 (K, 2), x and y in pixels.
        labels: int32 (K,).
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Surroundings:
    """An object, and the grid of pixels in and around it among which its points are chosen; see `_window`.

    Attributes:
        mask: bool (h, w), grid pixels of the object.
        free: bool (h, w), grid pixels where a negative point may lie.
        background: bool (S, S), like `free`, but for every pixel of the tile.
        depth: float32 (h, w), distance in tile pixels of each grid pixel of the object to the nearest one off it.
        interior: int64 (2,), x and y of the interior point.
        offset_xy: int64 (2,), x and y of the first grid pixel.
        step: Tile pixels between neighboring grid pixels.
    """

    mask: NDArray[np.bool_]
    free: NDArray[np.bool_]
    background: NDArray[np.bool_]
    depth: NDArray[np.float32]
    interior: NDArray[np.int64]
    offset_xy: NDArray[np.int64]
    step: int


def derive_points(
    segment: Segment, background: NDArray[np.bool_], counts: PointCounts, generator: np.random.Generator
) -> dict[str, PaddedPoints]:
    """Derive all points of one segment.

    Args:
        segment: The object.
        background: bool (S, S), where a negative point may lie: outside the object's class, not ignored, in the ROI.
        counts: P and Q.
        generator: Draws the candidates if there are more than `MAX_CANDIDATES`.

    Returns:
        The points by the name of their set. If an object has fewer candidates than points, the last places are padding.
    """
    around = _surroundings(segment, background, counts)
    found: dict[str, PaddedPoints] = {}
    for name, points in POINT_SETS.items():
        xy = DERIVATIONS[name](around, points.count(counts), generator)
        found[name] = _padded(xy, points.columns(counts), points.label)
    return found


def _interior(around: Surroundings, _count: int, _generator: np.random.Generator) -> NDArray[np.int64]:
    return around.interior[None]


def _positive(around: Surroundings, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The interior point, then points well inside the object that are far from each other."""
    deep = _deep_pixels(around.mask, around.depth) * around.step + around.offset_xy
    return _spread(deep, count, generator, first=around.interior)


def _negative(around: Surroundings, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Points near the object and far from each other; if too few pixels are near, the nearest pixels of the tile."""
    candidates = _near_pixels(around.mask, around.free, around.step) * around.step + around.offset_xy
    if len(candidates) < count:
        candidates = _nearest(np.argwhere(around.background)[:, ::-1], around.interior, MAX_CANDIDATES)
    return _spread(candidates, count, generator)


Derivation = Callable[[Surroundings, int, np.random.Generator], NDArray[np.int64]]
"""Derives at most the given number of points, int64 (n, 2) as x, y, and draws from the object's generator."""

DERIVATIONS: dict[str, Derivation] = {
    INTERIOR.name: _interior,
    POSITIVE.name: _positive,
    NEGATIVE.name: _negative,
}


def _surroundings(segment: Segment, background: NDArray[np.bool_], counts: PointCounts) -> Surroundings:
    on_segment = [points.count(counts) for points in POINT_SETS.values() if points.label == PointLabel.POSITIVE]
    window, offset_xy, step = _window(segment, max(on_segment))
    mask, free = (np.ascontiguousarray(pixels[window]) for pixels in (segment.mask, background))
    depth = _distance(mask, outside_is=False) * np.float32(step)
    interior = _interior_point(segment, depth, offset_xy, step)
    return Surroundings(mask, free, background, depth, interior, offset_xy, step)


def _window(segment: Segment, wanted: int) -> tuple[tuple[slice, slice], NDArray[np.int64], int]:
    """Return the grid of pixels among which an object's points are chosen.

    Nearly all candidates lie near the object, so the rest of the tile is left out. A grid pixel is a pixel of the tile,
    so a point on it lies on the correct side of the outline, whatever the step.

    Args:
        segment: The object.
        wanted: Minimum number of grid pixels on the segment, or all of its pixels if it has fewer; at least one.

    Returns:
        The slices of the grid, x and y of its first pixel, and its step in pixels.
    """
    left, top, right, bottom = segment.box_xyxy
    margin = int(NEAR_PX[1]) + 1
    height, width = segment.tile_shape
    x, y = max(left - margin, 0), max(top - margin, 0)
    end_x, end_y = min(right + margin + 1, width), min(bottom + margin + 1, height)
    # A thin straight object could fall between the lines of a coarse grid, so the step stays below the thickness of its
    # box. The box of a thin bent object, such as a frame, is large, so its grid pixels are counted.
    step = max(min(max(end_x - x, end_y - y) // WINDOW_PX, min(right - left, bottom - top) // 8), 1)
    if np.count_nonzero(segment.mask[y:end_y:step, x:end_x:step]) < wanted:
        step = 1
    return (slice(y, end_y, step), slice(x, end_x, step)), np.array([x, y]), step


def _distance(mask: NDArray[np.bool_], *, outside_is: bool) -> NDArray[np.float32]:
    """Distance in pixels of each true pixel to the nearest false one; pixels outside the array are `outside_is`."""
    padded = np.pad(mask, 1, constant_values=outside_is).view(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(distance[1:-1, 1:-1], np.float32)


def _interior_point(
    segment: Segment, depth: NDArray[np.float32], offset_xy: NDArray[np.int64], step: int
) -> NDArray[np.int64]:
    """The centroid if it lies on the segment, otherwise the grid pixel farthest from the border; x and y."""
    left, top, _, _ = segment.box_xyxy
    pixels = np.ascontiguousarray(segment.crop).view(np.uint8)
    # Summing columns and rows takes a sixteenth of the time of OpenCV's `moments`, which computes all moments.
    x, y = (_mean_place(cv2.reduce(pixels, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)) for axis in (0, 1))
    if segment.crop[y, x]:
        return np.array([left + x, top + y], np.int64)
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return np.array([column, row], np.int64) * step + offset_xy


def _mean_place(counts: NDArray[np.generic]) -> int:
    """Return the rounded mean of the positions 0, 1, ..., each weighted by its entry in `counts`."""
    times = counts.ravel().astype(np.int64)
    return round(int(times @ np.arange(len(times))) / int(times.sum()))


def _deep_pixels(mask: NDArray[np.bool_], depth: NDArray[np.float32]) -> NDArray[np.int64]:
    """Grid pixels well inside their part of the segment, so that clicks do not land on outlines; (n, 2) as x, y."""
    count, numbered = cv2.connectedComponents(mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    parts = np.asarray(numbered, np.int32)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, parts[mask], depth[mask])
    margins = np.minimum(deepest / 2, BORDER_MARGIN_PX)
    return np.argwhere(mask & (depth >= margins[parts]))[:, ::-1]


def _near_pixels(mask: NDArray[np.bool_], background: NDArray[np.bool_], step: int) -> NDArray[np.int64]:
    """Background pixels of the grid in a ring around the segment; (n, 2) as x, y."""
    distance = _distance(~mask, outside_is=True) * np.float32(step)
    # Between the lines of the grid, the segment may be nearer than the grid shows.
    nearest = NEAR_PX[0] + step - 1
    return np.argwhere(background & (distance >= nearest) & (distance <= NEAR_PX[1]))[:, ::-1]


def _nearest(pixels: NDArray[np.int64], to_xy: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return pixels[np.argsort(_squared_distance(pixels, to_xy), kind="stable")[:count]]


def _squared_distance(pixels: NDArray[np.int64], to_xy: NDArray[Any]) -> NDArray[Any]:
    x, y = (pixels - to_xy).T
    return x * x + y * y


def _spread(
    pixels: NDArray[np.int64],
    count: int,
    generator: np.random.Generator,
    first: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Choose up to `count` distinct pixels, each the farthest from those chosen before it.

    Args:
        pixels: int64 (n, 2) as x, y, the candidates.
        count: Maximum number of points.
        generator: Draws candidates if there are more than `MAX_CANDIDATES`.
        first: The first point; unless given, the candidate farthest from the mean of all candidates.

    Returns:
        int64 (at most count, 2) as x, y.
    """
    if count == 0 or not len(pixels):
        return np.zeros((0, 2), np.int64)
    if len(pixels) > MAX_CANDIDATES:
        # Cut the pixels, in reading order, into runs of equal length, and draw one from each: this spreads evenly.
        runs = (np.arange(MAX_CANDIDATES) + generator.random(MAX_CANDIDATES)) * len(pixels) / MAX_CANDIDATES
        pixels = pixels[runs.astype(np.int64)]
    if first is None:
        outermost = np.argmax(_squared_distance(pixels, pixels.mean(axis=0)))
        first = np.asarray(pixels[outermost], np.int64)
    chosen = [first]
    distance = _squared_distance(pixels, first)
    while len(chosen) < count and distance.max() > 0:
        chosen.append(pixels[np.argmax(distance)])
        distance = np.minimum(distance, _squared_distance(pixels, chosen[-1]))
    return np.stack(chosen)


def _padded(points: NDArray[np.int64], columns: int, label: PointLabel) -> PaddedPoints:
    coords = np.zeros((columns, 2), np.float32)
    labels = np.full(columns, PointLabel.PADDING, np.int32)
    coords[: len(points)] = points
    labels[: len(points)] = label
    return PaddedPoints(coords, labels)
