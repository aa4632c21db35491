"""One object that a model found in an image.

Coordinates are x, y; arrays are H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.classes import Color

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, without the right and bottom end."""


@dataclass(frozen=True)
class ObjectClass:
    """The class of an object.

    Attributes:
        name: The name.
        color: The color in pictures, sRGB.
    """

    name: str
    color: Color


@dataclass(frozen=True, eq=False)
class FoundObject:
    """One object, in pixels of the grid that the model works on.

    Attributes:
        mask: bool (h, w), its mask inside its box.
        origin_xy: x, y of the mask's first pixel.
        iou: The model's estimate of its IoU, 0 to 1.
        stability: IoU of the masks at a higher and a lower threshold, 0 to 1.
        kind: Its class; None if nothing tells it.
        name: The name that the prompt has; empty without one.
    """

    mask: NDArray[np.bool_]
    origin_xy: tuple[int, int]
    iou: float
    stability: float
    kind: ObjectClass | None = None
    name: str = ""

    @property
    def box(self) -> Box:
        """The box around its mask's array."""
        (x, y), (height, width) = self.origin_xy, self.mask.shape
        return x, y, x + width, y + height

    @property
    def area_px(self) -> int:
        """Number of its pixels."""
        return int(np.count_nonzero(self.mask))

    @classmethod
    def cut(
        cls, mask: NDArray[np.bool_], origin_xy: tuple[int, int], iou: float, stability: float
    ) -> FoundObject | None:
        """Make an object of a mask, (H, W), cut to what is in it; None if it is empty."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        top, left = int(rows[0]), int(columns[0])
        crop = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1].copy()
        return cls(crop, (origin_xy[0] + left, origin_xy[1] + top), iou, stability)

    def within(self, box: Box) -> NDArray[np.bool_]:
        """Return its pixels in a box, bool (h, w) of the box's size."""
        left, top, right, bottom = box
        found = np.zeros((bottom - top, right - left), np.bool_)
        own_left, own_top, own_right, own_bottom = self.box
        x0, y0, x1, y1 = max(left, own_left), max(top, own_top), min(right, own_right), min(bottom, own_bottom)
        if x0 < x1 and y0 < y1:
            part = self.mask[y0 - own_top : y1 - own_top, x0 - own_left : x1 - own_left]
            found[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return found


def common_box(first: Box, second: Box) -> Box | None:
    """Return the box that two boxes share; None if they share none."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def joint_box(first: Box, second: Box) -> Box:
    """Return the box around two boxes."""
    return (
        min(first[0], second[0]),
        min(first[1], second[1]),
        max(first[2], second[2]),
        max(first[3], second[3]),
    )
