"""One object that a model found in an image.

Coordinates are x, y; arrays are H, W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.prompts.object_class import ObjectClass

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are exclusive."""


@dataclass(frozen=True, eq=False)
class FoundObject:
    """One object, in pixels of the grid that the model works on.

    The mask is kept as bits: across a wide slide, many objects wait for a window that may extend them.

    Attributes:
        bits: uint8 (h, ceil(w / 8)), mask of the object within its bounding box, eight pixels of a row in a byte.
        origin_xy: x, y of the mask's first pixel.
        size_xy: w, h, the size of the bounding box.
        area_px: Number of pixels of the object.
        iou: The model's estimate of the mask's IoU with the true object, 0 to 1.
        stability: IoU between the masks at a higher and a lower threshold, 0 to 1.
        kind: Class of the object; None if it is not known.
        name: Name of the prompt; empty without a prompt.
    """

    bits: NDArray[np.uint8]
    origin_xy: tuple[int, int]
    size_xy: tuple[int, int]
    area_px: int
    iou: float
    stability: float
    kind: ObjectClass | None = None
    name: str = ""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask of the object within its bounding box, bool (h, w)."""
        return self.within(self.box)

    @property
    def box(self) -> Box:
        """The bounding box of the object."""
        (x, y), (width, height) = self.origin_xy, self.size_xy
        return x, y, x + width, y + height

    @classmethod
    def from_mask(
        cls, mask: NDArray[np.bool_], origin_xy: tuple[int, int], iou: float, stability: float
    ) -> FoundObject | None:
        """Make an object from a mask, (H, W), cropped to its bounding box; return None if the mask is empty."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        top, left = int(rows[0]), int(columns[0])
        crop = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
        height, width = crop.shape
        origin = origin_xy[0] + left, origin_xy[1] + top
        area = int(np.count_nonzero(crop))
        return cls(np.packbits(crop, axis=1), origin, (width, height), area, iou, stability)

    def within(self, box: Box) -> NDArray[np.bool_]:
        """Return the part of the mask within a box, bool (h, w) of the size of that box."""
        left, top, right, bottom = box
        found = np.zeros((bottom - top, right - left), np.bool_)
        part = common_box(box, self.box)
        if part is not None:
            x0, y0, x1, y1 = part
            own_left, own_top = self.origin_xy
            first = (x0 - own_left) // 8
            bits = self.bits[y0 - own_top : y1 - own_top, first : (x1 - own_left + 7) // 8]
            skipped = x0 - own_left - 8 * first
            pixels = np.unpackbits(bits, axis=1)[:, skipped : skipped + x1 - x0]
            found[y0 - top : y1 - top, x0 - left : x1 - left] = pixels
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
