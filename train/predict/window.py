"""Choose the window of a prompted object.

A window has the size of the training tiles. If an object is at most half as large as a window, it gets the window whose
center is nearest to the center of the object. These windows lie at steps of half a window, so near objects share a
window and the encoder runs only once for them. A larger object that fits into a window gets a window around its own
center. An even larger object gets a window of twice the side, or four times the side, and so on.

Coordinates are x, y in pixels of the grid. Axes: S pixels along a side of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDEST_PX = 1 << 14
"""Longest side of an enlarged window in pixels of the grid. The limit keeps memory from growing with the object: at
this side, a mask and its outline take about 1 GB."""


@dataclass(frozen=True)
class Window:
    """A square part of the grid.

    Attributes:
        left: x of its first pixel; it may lie outside the image.
        top: y of its first pixel.
        side: Side of the window in pixels of the grid.
    """

    left: int
    top: int
    side: int


def window_of(extent: Sequence[float], size_xy: tuple[int, int], window_px: int) -> Window:
    """Choose the window of an object by the rules above.

    Args:
        extent: Left, top, right and bottom of the object's box, or of the box around its clicks.
        size_xy: Width and height of the grid.
        window_px: S.
    """
    left, top, right, bottom = extent
    longest = max(right - left, bottom - top)
    side = window_px
    while side < min(longest, max(size_xy)) and 2 * side <= WIDEST_PX:
        side *= 2
    center = (left + right) / 2, (top + bottom) / 2
    starts: list[int] = []
    for middle, size in zip(center, size_xy, strict=True):
        start = middle - side / 2
        if longest <= window_px / 2:
            step = max(window_px // 2, 1)
            start = round(start / step) * step
        # The window lies inside the image. If the image is smaller, both start at the same place, as with tiles.
        starts.append(max(min(round(start), size - side), 0))
    return Window(starts[0], starts[1], side)
