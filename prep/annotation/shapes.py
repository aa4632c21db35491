"""Represent annotated outlines, and turn them into pixels.

Coordinates are x, y in pixels of the image, with the corner of the first pixel at 0, 0: a rectangle from a to b covers
the pixels a to b - 1. Arrays are H, W.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from prep.annotation.runs import Runs, decoded
from schemas.classes import Color

Ring = NDArray[np.float64]
"""A closed line, float64 (n, 2) as x, y; the last point need not repeat the first."""

Window = tuple[slice, slice]
"""Rows and columns of an image."""

FARTHEST = 16
"""How far outside its image a point may lie, in lengths of the image's side: drawing longer lines takes longer."""


@dataclass(frozen=True)
class Polygon:
    """An area with holes.

    Attributes:
        outer: Its outline.
        holes: The outlines of its holes.
    """

    outer: Ring
    holes: tuple[Ring, ...] = ()


@dataclass(frozen=True)
class Shape:
    """One annotated area.

    Attributes:
        class_name: Its class.
        polygons: Its parts, which are joined.
        runs: Its pixels as run lengths; used instead of polygons.
        group: Areas with the same class and group form one instance; None if the area is an instance by itself.
        is_crowd: Whether it covers many instances that are not outlined one by one.
    """

    class_name: str
    polygons: tuple[Polygon, ...] = ()
    runs: Runs | None = None
    group: str | None = None
    is_crowd: bool = False

    def pixels(self, height: int, width: int) -> tuple[Window, NDArray[np.bool_]]:
        """Return the pixels of the area, as the window around them and bool (h, w) in it.

        Args:
            height: H of the image.
            width: W of the image.
        """
        if self.runs is not None:
            return (slice(0, height), slice(0, width)), self.runs.pixels()
        window = self._window(height, width)
        rows, columns = window
        pixels = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.bool_)
        if pixels.size:
            for polygon in self.polygons:
                area = _filled(polygon.outer, window, (height, width))
                for hole in polygon.holes:
                    area &= ~_filled(hole, window, (height, width))
                pixels |= area
        return window, pixels

    def is_far_outside(self, height: int, width: int) -> bool:
        """Return whether a point lies so far outside the image that it cannot belong to it."""
        if self.runs is not None:
            return False
        bound = np.array([width, height]) * FARTHEST
        rings = [line for polygon in self.polygons for line in (polygon.outer, *polygon.holes)]
        return any(bool((np.abs(line) > bound).any()) for line in rings)

    def _window(self, height: int, width: int) -> Window:
        points = np.concatenate([polygon.outer for polygon in self.polygons])
        left, top = np.floor(points.min(axis=0)).astype(int) - 1
        right, bottom = np.ceil(points.max(axis=0)).astype(int) + 1
        rows = slice(int(np.clip(top, 0, height)), int(np.clip(bottom, 0, height)))
        return rows, slice(int(np.clip(left, 0, width)), int(np.clip(right, 0, width)))


@dataclass
class Annotations:
    """What annotation files say about their images.

    Attributes:
        shapes: The areas of each image, in the order of the file, by the image's name: its path, file name or stem.
        sizes: Width and height of the images whose size the file gives.
        codes: The class codes that the file gives; empty if it gives none.
        colors: The class colors that the file gives.
        left_out: Number of annotations that have no area, by their kind.
    """

    shapes: dict[str, list[Shape]] = field(default_factory=dict[str, list[Shape]])
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    codes: dict[str, int] = field(default_factory=dict[str, int])
    colors: dict[str, Color] = field(default_factory=dict[str, Color])
    left_out: dict[str, int] = field(default_factory=dict[str, int])

    def leave_out(self, what: str) -> None:
        """Count an annotation that has no area."""
        self.left_out[what] = self.left_out.get(what, 0) + 1


def ring(points: object) -> Ring | None:
    """Make a ring from points; None if there are fewer than three.

    Args:
        points: The coordinates as pairs of x and y, or as one flat list.
    """
    values = np.asarray(points, np.float64).reshape(-1, 2)
    return values if len(values) >= 3 else None


def _filled(outline: Ring, window: Window, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels of a window that lie inside an outline, drawn as COCO's own tools draw it.

    The outline is drawn where it is, because a moved one is rounded differently. Only the window is decoded.
    """
    height, width = size
    rows, columns = window
    (drawn,) = cast("Any", coco_mask).frPyObjects([outline.ravel().tolist()], height, width)
    ends = np.cumsum(np.array([0, *decoded(drawn["counts"].decode())], np.int64))
    lengths = np.diff(np.clip(ends, columns.start * height, columns.stop * height))
    return Runs(lengths, (height, columns.stop - columns.start)).pixels()[rows]
