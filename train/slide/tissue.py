"""Find the tissue of a slide at low resolution, so that only tissue is searched for objects. Arrays are H, W."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from train.slide.working_grid import WorkingGrid

MIN_SATURATION = 8
"""Lowest threshold of the saturation, 0 to 255. Pixels of tissue must be more saturated than this."""


class TissueMask:
    """Tells where a slide has tissue: where its colors exceed half of Otsu's threshold of the saturation.

    Args:
        grid: The slide. It is read once, at low resolution.
    """

    def __init__(self, grid: WorkingGrid) -> None:
        preview = grid.preview
        self._factors = preview.shape[1] / grid.size_xy[0], preview.shape[0] / grid.size_xy[1]
        saturation = cv2.cvtColor(cv2.GaussianBlur(preview, (0, 0), 2), cv2.COLOR_RGB2HSV)[..., 1]
        threshold, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        found = (saturation > max(threshold * 0.5, MIN_SATURATION)).astype(np.uint8)
        # Grow the mask a little, so that it includes thin strands and the rim of the tissue.
        self.mask: NDArray[np.bool_] = cv2.dilate(found, np.ones((5, 5), np.uint8)).astype(bool)

    def window(self, left: int, top: int, side: int) -> NDArray[np.bool_]:
        """Return where a window of the grid has tissue, bool (side, side)."""
        places = np.arange(side) + 0.5
        rows = np.clip(((top + places) * self._factors[1]).astype(int), 0, self.mask.shape[0] - 1)
        columns = np.clip(((left + places) * self._factors[0]).astype(int), 0, self.mask.shape[1] - 1)
        return self.mask[np.ix_(rows, columns)]
