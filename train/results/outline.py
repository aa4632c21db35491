"""Trace the outlines of a mask along the edges of its pixels; filling the outlines gives the same mask.

Coordinates are x, y with the corner of the first pixel at 0, 0. Arrays are H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outline:
    """The outline of one part of a mask.

    Attributes:
        outer: int64 (n, 2), corners of the outer ring; the last corner is connected to the first.
        holes: Corners of the ring around each hole, in the same form.
    """

    outer: NDArray[np.int64]
    holes: tuple[NDArray[np.int64], ...]


def outlines(mask: NDArray[np.bool_]) -> list[Outline]:
    """Trace the outline of each 4-connected part of a mask.

    Args:
        mask: bool (H, W).

    Returns:
        The outlines of the parts, ordered by the first pixel of each part, row by row.
    """
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    found: list[Outline] = []
    for number in range(1, count):
        left, top, width, height = (int(value) for value in stats[number][:4])
        part = numbers[top : top + height, left : left + width] == number
        outer: NDArray[np.int64] | None = None
        holes: list[NDArray[np.int64]] = []
        for ring in _rings(part):
            corners = _corners(ring) + np.array([left, top])
            if _signed_area(ring) > 0:
                outer = corners
            else:
                holes.append(corners)
        assert outer is not None
        found.append(Outline(outer, tuple(holes)))
    return found


def _rings(part: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Follow the edges between pixels inside and outside a part, with the part on the right-hand side."""
    padded = np.pad(part, 1)
    inner = padded[1:-1, 1:-1]
    starts: list[NDArray[np.int64]] = []
    steps: list[NDArray[np.int64]] = []
    for outside, corner, step in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ):
        ys, xs = np.nonzero(inner & ~outside)
        starts.append(np.stack([xs, ys], 1) + np.array(corner))
        steps.append(np.tile(np.array(step), (len(xs), 1)))
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for start, step in zip(np.concatenate(starts).tolist(), np.concatenate(steps).tolist(), strict=True):
        edges.setdefault((start[0], start[1]), []).append((step[0], step[1]))
    rings: list[NDArray[np.int64]] = []
    while edges:
        place = first = next(iter(edges))
        direction: tuple[int, int] | None = None
        ring: list[tuple[int, int]] = []
        while True:
            choices = edges[place]
            # Where two pixels of the part touch at a corner, a turn to the left keeps rings from touching themselves.
            turn = (direction[1], -direction[0]) if direction else choices[0]
            direction = turn if turn in choices else choices[0]
            choices.remove(direction)
            if not choices:
                del edges[place]
            ring.append(place)
            place = (place[0] + direction[0], place[1] + direction[1])
            if place == first:
                break
        rings.append(np.array(ring, np.int64))
    return rings


def _corners(ring: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return only the corners of a ring, without the points on straight lines."""
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    return ring[(before != after).any(1)]


def _signed_area(ring: NDArray[np.int64]) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
