"""Measure how well outlines agree: normalized surface Dice at a tolerance.

Axes: H and W pixels.
Source: Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy, 2018.
They define the measure on surface elements; here it is computed on the pixels of outlines.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def outline(mask: NDArray[np.bool_], counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask's pixels that touch a pixel outside the mask which is not ignored.

    Where a mask ends at the tile's edge or at ignored pixels, the object may go on, so that part is not an outline.

    Args:
        mask: bool (H, W), the mask.
        counts: bool (H, W), False for ignored pixels.

    Returns:
        bool (H, W), True on the outline.
    """
    beyond = cv2.dilate((counts & ~mask).view(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & counts & beyond.astype(bool)


def surface_dice(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], ignore: NDArray[np.bool_], tolerance_px: float
) -> float:
    """Compute the share of the pixels of both outlines that lie within a tolerance of the other outline.

    Args:
        predicted: bool (H, W), the predicted mask.
        truth: bool (H, W), the true mask.
        ignore: bool (H, W), True for pixels that are left out.
        tolerance_px: Distance between pixel centers, in pixels, up to which outlines agree.

    Returns:
        The share, 0 to 1. NaN if the truth has no outline, for example because the object fills the tile: then its
        end is unknown. This depends on the truth alone, so every model is scored on the same objects.
    """
    if not truth.any():
        return float("nan")
    window = _window(predicted | truth)
    counts = ~ignore[window]
    ours, theirs = outline(predicted[window], counts), outline(truth[window], counts)
    if not theirs.any():
        return float("nan")
    near = np.count_nonzero(ours & _near(theirs, tolerance_px)) + np.count_nonzero(theirs & _near(ours, tolerance_px))
    return near / (np.count_nonzero(ours) + np.count_nonzero(theirs))


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the bounding box of a mask plus one pixel on each side; outlines in it equal those in the whole tile."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _near(line: NDArray[np.bool_], tolerance_px: float) -> NDArray[np.bool_]:
    """Return the pixels within a tolerance of a line, bool (H, W)."""
    if not line.any():
        return np.zeros_like(line)
    distance = cv2.distanceTransform((~line).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's float32 distances may exceed the exact ones by a rounding error.
    return np.asarray(distance <= tolerance_px + 1e-3)
