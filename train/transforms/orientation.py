"""The eight orientations of an image (flips and quarter turns), for its pixels and its points, and their inverses.

Arrays are H, W; coordinates are x, y of pixel centers, so the mirror image of x is W-1-x.
Axes: O objects, K points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.prompt_kinds import PointLabel

_FLIPS = ((False, False), (False, True), (True, True), (True, False))
"""Whether to flip x and y, for each number of quarter turns; for an odd number, the image is transposed first."""


@dataclass(frozen=True)
class Orientation:
    """An orientation of an image: counterclockwise quarter turns, then optionally a mirror image.

    Attributes:
        turns: Number of counterclockwise quarter turns, 0 to 3.
        mirrored: Whether left and right are exchanged after the turns.
    """

    turns: int = 0
    mirrored: bool = False

    @property
    def index(self) -> int:
        """Index of this orientation, 0 to 7: the number of turns, plus 4 if it is mirrored."""
        return self.turns + 4 * self.mirrored

    @property
    def inverse(self) -> Orientation:
        """The orientation that undoes this one; a mirrored one undoes itself."""
        return self if self.mirrored else Orientation(-self.turns % 4)

    def size_wh(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height that an image of this width and height has after the move, in pixels."""
        width, height = size_wh
        return (height, width) if self.turns % 2 else (width, height)

    def tensor(self, pixels: Tensor) -> Tensor:
        """Move the pixels of a tensor (..., H, W) on the tensor's own device."""
        turned = pixels.rot90(self.turns, (-2, -1))
        return turned.flip(-1) if self.mirrored else turned

    def pixels(self, pixels: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Move the pixels of an array in main memory.

        `numpy.rot90` gives the same result but takes ten times as long, because it copies pixel by pixel across rows.

        Args:
            pixels: The pixels, uint8 (H, W, C) or bool (H, W).
            out: The array of the new shape to write to; a new array unless given.

        Returns:
            The moved pixels: `out`, or a new array.
        """
        width, height = self.size_wh((pixels.shape[1], pixels.shape[0]))
        out = np.empty((height, width, *pixels.shape[2:]), pixels.dtype) if out is None else out
        if not pixels.size:
            return out
        source, target = pixels.view(np.uint8), out.view(np.uint8)
        if self.turns % 2:
            source = cv2.transpose(source, dst=target)
        # After a transpose, flipping the rows makes a counterclockwise turn, and flipping the columns a clockwise turn.
        flips_x, flips_y = _FLIPS[self.turns]
        flips_x ^= self.mirrored
        if flips_x or flips_y:
            cv2.flip(source, -1 if flips_x and flips_y else int(flips_x), dst=target)
        elif not self.turns % 2:
            target[:] = source
        return out

    def points(self, coords: Tensor, labels: Tensor, size_wh: tuple[int, int]) -> Tensor:
        """Move point coordinates together with an image.

        A padding point stays at (0, 0). The corners of a box are put in order again, so that the first one is still the
        top-left corner.

        Args:
            coords: The coordinates, float32 (O, K, 2) as x, y.
            labels: SAM 2's label of each point, int32 (O, K).
            size_wh: Width and height of the image before the move, in pixels.

        Returns:
            The moved coordinates, float32 (O, K, 2).
        """
        width, height = size_wh
        x, y = coords.unbind(-1)
        for _ in range(self.turns):
            x, y = y, width - 1 - x
            width, height = height, width
        if self.mirrored:
            x = width - 1 - x
        moved = _corners_in_order(torch.stack([x, y], -1), labels)
        return torch.where((labels == PointLabel.PADDING)[..., None], torch.zeros_like(moved), moved)


ORIENTATIONS = tuple(Orientation(turns, mirrored) for mirrored in (False, True) for turns in range(4))
"""All eight orientations in the order of their index; the first one leaves an image as it is."""


def _corners_in_order(coords: Tensor, labels: Tensor) -> Tensor:
    """Put the corners of a moved box in order: label 2 is the top-left one, and label 3 next to it the bottom-right."""
    first = (labels == PointLabel.BOX_TOP_LEFT).nonzero(as_tuple=True)
    second = (first[0], first[1] + 1)
    ordered = coords.clone()
    ordered[first] = torch.minimum(coords[first], coords[second])
    ordered[second] = torch.maximum(coords[first], coords[second])
    return ordered
