"""One object that a model found in an image.

Coordinates are x, y; arrays are H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.classes import Color

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are exclusive."""


@dataclass(frozen=True)
class ObjectClass:
    """The class of an object.

    Attributes:
        name: Name of the class.
        color: Color of the class in pictures, sRGB.
    """

    name: str
    color: Color


@dataclass(frozen=True, eq=False)
class FoundObject:
    """One object, in pixels of the grid that the model works on.

    Attributes:
        mask: bool (h, w), mask of the object within its bounding box.
        origin_xy: x, y of the mask's first pixel.
        iou: The model's estimate of the mask's IoU with the true object, 0 to 1.
        stability: IoU between the masks at a higher and a lower threshold, 0 to 1.
        kind: Class of the object; None if it is not known.
        name: Name of the prompt; empty without a prompt.
    """

    mask: NDArray[np.bool_]
    origin_xy: tuple[int, int]
    iou: float
    stability: float
    kind: ObjectClass | None = None
    name: str = ""

    @property
    def box(self) -> Box:
        """The bounding box of the object."""
        (x, y), (height, width) = self.origin_xy, self.mask.shape
        return x, y, x + width, y + height

    @property
    def area_px(self) -> int:
        """Number of pixels of the object."""
        return int(np.count_nonzero(self.mask))

    @classmethod
    def cut(
        cls, mask: NDArray[np.bool_], origin_xy: tuple[int, int], iou: float, stability: float
    ) -> FoundObject | None:
        """Make an object from a mask, (H, W), cropped to its bounding box; return None if the mask is empty."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        top, left = int(rows[0]), int(columns[0])
        crop = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1].copy()
        return cls(crop, (origin_xy[0] + left, origin_xy[1] + top), iou, stability)

    def within(self, box: Box) -> NDArray[np.bool_]:
        """Return the part of the mask within a box, bool (h, w) of the size of that box."""
        left, top, right, bottom = box
        found = np.zeros((bottom - top, right - left), np.bool_)
        own_left, own_top, own_right, own_bottom = self.box
        x0, y0, x1, y1 = max(left, own_left), max(top, own_top), min(right, own_right), min(bottom, own_bottom)
        if x0 < x1 and y0 < y1:
            part = self.mask[y0 - own_top : y1 - own_top, x0 - own_left : x1 - own_left]
            found[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return found


def common_box(first: Box, second: Box) -> Box | None:
    """Return the intersection of two boxes; None if it is empty."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def joint_box(first: Box, second: Box) -> Box:
    """Return the smallest box that contains two boxes."""
    return (
        min(first[0], second[0]),
        min(first[1], second[1]),
        max(first[2], second[2]),
        max(first[3], second[3]),
    )
