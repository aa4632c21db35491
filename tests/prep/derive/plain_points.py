"""Derive points by plain, slow code, on the whole grid around an object: what `prep.derive.points` must equal."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.derive.points import BORDER_MARGIN_PX, MAX_CANDIDATES, NEAR_PX, WINDOW_PX
from prep.derive.segments import Segment
from schemas.prompt_kinds import PointCounts

Points = NDArray[Any]


def plain_points(
    segment: Segment, background: NDArray[np.bool_], counts: PointCounts, generator: np.random.Generator
) -> dict[str, Points]:
    """Return the points of each set, without padding; (n, 2) as x, y."""
    rows, columns, step = _grid(segment, counts.positive)
    mask, free = segment.mask[np.ix_(rows, columns)], background[np.ix_(rows, columns)]
    depth = _distance(mask, outside=0) * np.float32(step)
    ys, xs = np.nonzero(segment.mask)
    # A mean between two pixels is rounded as if the box began at 0.
    interior = np.array([values.min() + round((values - values.min()).mean()) for values in (xs, ys)])
    if not segment.mask[interior[1], interior[0]]:
        row, column = np.unravel_index(np.argmax(depth), depth.shape)
        interior = np.array([columns[column], rows[row]])
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    deep = np.zeros_like(mask)
    for part in range(1, count):
        is_part: Any = np.equal(parts, part)
        deep |= is_part & (depth >= min(depth[is_part].max() / 2, BORDER_MARGIN_PX))
    distance = _distance(~mask, outside=1) * np.float32(step)
    near = free & (distance >= NEAR_PX[0] + step - 1) & (distance <= NEAR_PX[1])
    positive = _spread(_drawn(_listed(deep, rows, columns), generator), counts.positive, interior)
    negative = _listed(near, rows, columns)
    if len(negative) < counts.negative:
        everywhere = np.argwhere(background)[:, ::-1]
        order = np.argsort(((everywhere - interior) ** 2).sum(axis=1), kind="stable")
        negative = everywhere[order[:MAX_CANDIDATES]]
    negative = _drawn(negative, generator)
    return {"interior": interior[None], "positive": positive, "negative": _spread(negative, counts.negative, None)}


def _grid(segment: Segment, wanted: int) -> tuple[Points, Points, int]:
    left, top, right, bottom = segment.box_xyxy
    margin = int(NEAR_PX[1]) + 1
    rows = np.arange(max(top - margin, 0), min(bottom + margin + 1, segment.tile_shape[0]))
    columns = np.arange(max(left - margin, 0), min(right + margin + 1, segment.tile_shape[1]))
    step = max(min(max(len(rows), len(columns)) // WINDOW_PX, min(right - left, bottom - top) // 8), 1)
    if segment.mask[np.ix_(rows[::step], columns[::step])].sum() < wanted:
        step = 1
    return rows[::step], columns[::step], step


def _distance(mask: NDArray[np.bool_], outside: int) -> Points:
    padded = np.pad(mask.astype(np.uint8), 1, constant_values=outside)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5))[1:-1, 1:-1]


def _listed(mask: NDArray[np.bool_], rows: Points, columns: Points) -> Points:
    ys, xs = np.nonzero(mask)
    return np.stack([columns[xs], rows[ys]], axis=-1)


def _drawn(pixels: Points, generator: np.random.Generator) -> Points:
    if len(pixels) <= MAX_CANDIDATES:
        return pixels
    runs = (np.arange(MAX_CANDIDATES) + generator.random(MAX_CANDIDATES)) * len(pixels) / MAX_CANDIDATES
    return pixels[runs.astype(int)]


def _spread(pixels: Points, count: int, first: Points | None) -> Points:
    if not count or not len(pixels):
        return np.zeros((0, 2), int)
    if first is None:
        first = pixels[np.argmax(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1))]
    chosen = [first]
    while len(chosen) < count:
        distance = np.min([((pixels - point) ** 2).sum(axis=1) for point in chosen], axis=0)
        if not distance.max():
            break
        chosen.append(pixels[np.argmax(distance)])
    return np.array(chosen)
