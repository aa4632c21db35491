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

COLUMNS_AT_ONCE = 16
"""OpenCV adds distances along a row in steps of up to this many columns, so their last bit depends on the column.

Distances on a part of the grid equal those on the whole grid only if the columns are the same modulo this number; the
grid itself begins at column 1.
"""


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
        mask: bool (h, w), the object at the grid pixels of its box.
        depth: float32 (h, w), distance in tile pixels of each of these pixels to the nearest one off the object.
        mask_xy: int32 (2,), x and y in the grid of the first of these pixels.
        free: bool (H, W), grid pixels where a negative point may lie.
        background: bool (S, S), like `free`, but for every pixel of the tile.
        interior: int32 (2,), x and y of the interior point.
        offset_xy: int32 (2,), x and y in the tile of the first grid pixel.
        step: Tile pixels between neighboring grid pixels.
    """

    mask: NDArray[np.bool_]
    depth: NDArray[np.float32]
    mask_xy: NDArray[np.int32]
    free: NDArray[np.bool_]
    background: NDArray[np.bool_]
    interior: NDArray[np.int32]
    offset_xy: NDArray[np.int32]
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


def _interior(around: Surroundings, _count: int, _generator: np.random.Generator) -> NDArray[np.int32]:
    return around.interior[None]


def _positive(around: Surroundings, count: int, generator: np.random.Generator) -> NDArray[np.int32]:
    """The interior point, then points well inside the object that are far from each other."""
    deep = _drawn(_deep_pixels(around.mask, around.depth), generator) + around.mask_xy
    return _spread(deep * around.step + around.offset_xy, count, first=around.interior)


def _negative(around: Surroundings, count: int, generator: np.random.Generator) -> NDArray[np.int32]:
    """Points near the object and far from each other; if too few pixels are near, the nearest pixels of the tile."""
    if not count:
        return np.zeros((0, 2), np.int32)
    near = _near_pixels(around)
    if len(near) < count:
        return _spread(_nearest(_true_pixels(around.background), around.interior, MAX_CANDIDATES), count)
    return _spread(_drawn(near, generator) * around.step + around.offset_xy, count)


Derivation = Callable[[Surroundings, int, np.random.Generator], NDArray[np.int32]]
"""Derives at most the given number of points, int32 (n, 2) as x, y, and draws from the object's generator."""

DERIVATIONS: dict[str, Derivation] = {
    INTERIOR.name: _interior,
    POSITIVE.name: _positive,
    NEGATIVE.name: _negative,
}


def _surroundings(segment: Segment, background: NDArray[np.bool_], counts: PointCounts) -> Surroundings:
    on_segment = [points.count(counts) for points in POINT_SETS.values() if points.label == PointLabel.POSITIVE]
    window, offset_xy, step = _window(segment, max(on_segment))
    mask, mask_xy = _on_grid(segment, offset_xy, step)
    # All pixels outside the box are off the object, so those beside the box are the nearest.
    before = int(mask_xy[0]) % COLUMNS_AT_ONCE + 1
    padded = np.zeros((mask.shape[0] + 2, before + mask.shape[1] + 1), np.uint8)
    padded[1:-1, before:-1] = mask
    depth = _distance(padded, step)[1:-1, before:-1]
    interior = _interior_point(segment, depth, mask_xy * step + offset_xy, step)
    return Surroundings(mask, depth, mask_xy, background[window], background, interior, offset_xy, step)


def _window(segment: Segment, wanted: int) -> tuple[tuple[slice, slice], NDArray[np.int32], int]:
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
    offset_xy = np.array([x, y], np.int32)
    if step > 1 and np.count_nonzero(_on_grid(segment, offset_xy, step)[0]) < wanted:
        step = 1
    return (slice(y, end_y, step), slice(x, end_x, step)), offset_xy, step


def _on_grid(segment: Segment, offset_xy: NDArray[np.int32], step: int) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Return the grid pixels of a segment's box, and x and y in the grid of the first of them."""
    to_box_xy = np.array(segment.box_xyxy[:2], np.int32) - offset_xy
    x, y = (-to_box_xy % step).tolist()
    return np.ascontiguousarray(segment.crop[y::step, x::step]), -(-to_box_xy // step)


def _distance(mask: NDArray[np.uint8], step: int) -> NDArray[np.float32]:
    """Distance in tile pixels of each pixel of a grid to the nearest one that is 0."""
    distance = np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)
    return distance * np.float32(step) if step > 1 else distance


def _interior_point(
    segment: Segment, depth: NDArray[np.float32], depth_xy: NDArray[np.int32], step: int
) -> NDArray[np.int32]:
    """The centroid if it lies on the segment, otherwise the grid pixel farthest from the border; x and y.

    Args:
        segment: The object.
        depth: float32 (h, w), distance to the border at the grid pixels of its box.
        depth_xy: int32 (2,), x and y in the tile of the first of these pixels.
        step: Tile pixels between neighboring grid pixels.
    """
    left, top, _, _ = segment.box_xyxy
    pixels = np.ascontiguousarray(segment.crop).view(np.uint8)
    # Summing columns and rows takes a sixteenth of the time of OpenCV's `moments`, which computes all moments.
    x, y = (_mean_place(cv2.reduce(pixels, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)) for axis in (0, 1))
    if segment.crop[y, x]:
        return np.array([left + x, top + y], np.int32)
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return np.array([column, row], np.int32) * step + depth_xy


def _mean_place(counts: NDArray[np.generic]) -> int:
    """Return the rounded mean of the positions 0, 1, ..., each weighted by its entry in `counts`."""
    times = counts.ravel().astype(np.int64)
    return round(int(times @ np.arange(len(times))) / int(times.sum()))


def _true_pixels(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.int32]:
    """List the pixels that are not 0, in reading order; (n, 2) as x, y."""
    # This takes a fraction of the time of `numpy.argwhere`.
    found: Any = cv2.findNonZero(np.ascontiguousarray(mask).view(np.uint8))
    return np.zeros((0, 2), np.int32) if found is None else np.asarray(found, np.int32).reshape(-1, 2)


def _deep_pixels(mask: NDArray[np.bool_], depth: NDArray[np.float32]) -> NDArray[np.int32]:
    """Pixels well inside their part of the segment, so that clicks do not land on outlines; (n, 2) as x, y."""
    count, numbered = cv2.connectedComponents(mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    if count == 2:
        # One part, as most objects are: the depth is 0 outside it, so the mask need not be looked at.
        return _true_pixels(depth >= np.minimum(depth.max() / 2, BORDER_MARGIN_PX))
    parts = np.asarray(numbered, np.int32)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, parts[mask], depth[mask])
    margins = np.minimum(deepest / 2, BORDER_MARGIN_PX)
    return _true_pixels(mask & (depth >= margins[parts]))


def _near_pixels(around: Surroundings) -> NDArray[np.int32]:
    """Free pixels of the grid in a ring around the object; (n, 2) as x, y."""
    x, y = around.mask_xy
    height, width = around.mask.shape
    rows, columns = around.free.shape
    outside: NDArray[np.uint8] = np.ones((rows, columns + 1), np.uint8)
    outside[y : y + height, x + 1 : x + 1 + width] = ~around.mask
    # Between the lines of the grid, the segment may be nearer than the grid shows.
    nearest = NEAR_PX[0] + around.step - 1
    distance = _distance(outside, around.step)[:, 1:]
    return _true_pixels(around.free & (distance >= nearest) & (distance <= NEAR_PX[1]))


def _nearest(pixels: NDArray[np.int32], to_xy: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    x, y = pixels.T
    order = np.argsort(_squared_distance(x, y, to_xy), kind="stable")
    return pixels[order[:count]]


def _squared_distance(x: NDArray[np.int32], y: NDArray[np.int32], to_xy: NDArray[Any]) -> NDArray[Any]:
    to_x, to_y = to_xy.tolist()
    x, y = x - to_x, y - to_y
    return x * x + y * y


def _drawn(pixels: NDArray[np.int32], generator: np.random.Generator) -> NDArray[np.int32]:
    """Draw at most `MAX_CANDIDATES` of some pixels, given in reading order, spread evenly."""
    if len(pixels) > MAX_CANDIDATES:
        # Cut the pixels into runs of equal length, and draw one from each.
        runs = (np.arange(MAX_CANDIDATES) + generator.random(MAX_CANDIDATES)) * len(pixels) / MAX_CANDIDATES
        pixels = pixels.take(runs.astype(np.int64), axis=0)
    return pixels


def _spread(pixels: NDArray[np.int32], count: int, first: NDArray[np.int32] | None = None) -> NDArray[np.int32]:
    """Choose up to `count` distinct pixels, each the farthest from those chosen before it.

    Args:
        pixels: int32 (n, 2) as x, y, the candidates.
        count: Maximum number of points, at least one.
        first: The first point; unless given, the candidate farthest from the mean of all candidates.

    Returns:
        int32 (at most count, 2) as x, y.
    """
    if not len(pixels):
        return np.zeros((0, 2), np.int32)
    x, y = pixels.T
    begin = first
    if begin is None:
        # Two means of columns take a tenth of the time of a mean along an axis, and whole numbers add up to the same.
        begin = np.asarray(pixels[np.argmax(_squared_distance(x, y, np.array([x.mean(), y.mean()])))], np.int32)
    # |p - c|^2 is the product of (-2 c_x, -2 c_y, 1, |c|^2) and (x, y, |p|^2, 1), so one product of matrices measures
    # all pixels. These are whole numbers below 2^53, which float64 holds exactly.
    terms = np.ones((4, len(pixels)))
    terms[0], terms[1] = x, y
    terms[2] = terms[0] * terms[0] + terms[1] * terms[1]
    chosen = [(int(begin[0]), int(begin[1]))]
    distance = _distances(terms, *chosen[0])
    while len(chosen) < count:
        farthest = int(distance.argmax())
        if distance[farthest] == 0:
            break
        chosen.append((int(x[farthest]), int(y[farthest])))
        np.minimum(distance, _distances(terms, *chosen[-1]), out=distance)
    return np.array(chosen, np.int32)


def _distances(terms: NDArray[np.float64], x: int, y: int) -> NDArray[np.float64]:
    """Squared distances of pixels to one of them, given the terms of the pixels; see `_spread`."""
    return np.array([-2.0 * x, -2.0 * y, 1.0, float(x * x + y * y)]) @ terms


def _padded(points: NDArray[np.int32], columns: int, label: PointLabel) -> PaddedPoints:
    coords = np.zeros((columns, 2), np.float32)
    labels = np.full(columns, PointLabel.PADDING, np.int32)
    coords[: len(points)] = points
    labels[: len(points)] = label
    return PaddedPoints(coords, labels)
