"""Measure how well outlines agree: normalized surface Dice at several tolerances.

An object may continue beyond the tile's edge and under ignored pixels. So an outline pixel of the truth or the
prediction is left out if it lies within the tolerance of an edge or of an ignored pixel.

Axes: H and W pixels, Q tolerances of the curve.
Source: Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy, 2018.
They define the measure on surface elements; here it is computed on outline pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)

_ROUNDING_UM = 1e-3
"""Distances in float32 may exceed the exact ones by a rounding error."""


CURVE_UM = (2.0, 5.0, 10.0, 20.0)
"""Tolerances of the curve of surface Dice, in micrometers."""


class TileOutlines:
    """Compares the outlines of masks in one tile.

    Args:
        ignore: bool (H, W), True for pixels that are left out.
        spacing_xy_um: Distance between neighboring pixels of the tile along x and y, in micrometers.
        tolerance_um: Distance up to which outlines agree, in micrometers.
    """

    def __init__(self, ignore: NDArray[np.bool_], spacing_xy_um: tuple[float, float], tolerance_um: float) -> None:
        self.spacing_xy_um = spacing_xy_um
        self.tolerances_um = (tolerance_um, *CURVE_UM)
        self._counts = ~ignore
        # The distance of each pixel to the nearest pixel that is ignored or beyond the tile's edge.
        self._depth_um = self._distance_um(np.pad(self._counts, 1))[1:-1, 1:-1]

    def surface_dice(self, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Compute the share of the pixels of both outlines that lie within a tolerance of the other outline.

        Args:
            predicted: bool (H, W), the predicted mask.
            truth: bool (H, W), the true mask.

        Returns:
            float64 (1 + Q,), the share at the tolerance, and at those of the curve, 0 to 1. NaN if the truth has no
            outline that counts, for example because the object fills the tile, so that its true outline is unknown.
            This depends on the truth alone, so every model is scored on the same objects.
        """
        shares = np.full(len(self.tolerances_um), np.nan)
        if not truth.any():
            return shares
        window = _window(predicted | truth)
        counts, depth_um = self._counts[window], self._depth_um[window]
        ours, theirs = outline(predicted[window], counts), outline(truth[window], counts)
        # For each outline pixel, its distance to the other outline and its depth; pixels of the prediction come first.
        apart_um = np.concatenate([self._apart_um(ours, theirs), self._apart_um(theirs, ours)])
        depths_um = np.concatenate([depth_um[ours], depth_um[theirs]])
        is_true = np.arange(len(depths_um)) >= np.count_nonzero(ours)
        for place, tolerance_um in enumerate(self.tolerances_um):
            kept = depths_um > tolerance_um + _ROUNDING_UM
            if (kept & is_true).any():
                shares[place] = (apart_um[kept] <= tolerance_um + _ROUNDING_UM).mean()
        return shares

    def _apart_um(self, line: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Return the distance of each pixel of a line to the other line; infinite if the other line is empty."""
        if not other.any():
            return np.full(np.count_nonzero(line), np.inf)
        return self._distance_um(~other)[line]

    def _distance_um(self, far: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Return the distance of each pixel to the nearest pixel that is not `far`, (H, W)."""
        x_um, y_um = self.spacing_xy_um
        if x_um != y_um:
            # Imported only here: the import takes long, and the pixels of most images are square.
            from scipy import ndimage

            return np.asarray(ndimage.distance_transform_edt(far, sampling=(y_um, x_um)))
        # This is ten times as fast, but works only for square pixels.
        return np.asarray(cv2.distanceTransform(far.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)) * x_um


def outline(mask: NDArray[np.bool_], counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask's pixels that have a neighbor outside the mask that is not ignored.

    Args:
        mask: bool (H, W), the mask.
        counts: bool (H, W), False for ignored pixels.

    Returns:
        bool (H, W), True on the outline.
    """
    beyond = cv2.dilate((counts & ~mask).view(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & counts & beyond.astype(bool)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the bounding box of a mask plus one pixel on each side; outlines in it equal those in the whole tile."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)
