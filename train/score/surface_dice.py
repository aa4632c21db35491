"""Agreement of outlines: normalised surface Dice at a tolerance.

Axes: H and W pixels.
Source: Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy, 2018,
for the measure, here on pixels of outlines instead of surface elements.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def outline(mask: NDArray[np.bool_], counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's pixels with a neighbour that counts and is not in the mask.

    Where a mask ends at the tile's edge or at ignored pixels nothing says that the object ends, so no outline is there.

    Args:
        mask: bool (H, W).
        counts: bool (H, W), false for don't-care pixels.
    """
    beyond = cv2.dilate((counts & ~mask).view(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & counts & beyond.astype(bool)


def surface_dice(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], ignore: NDArray[np.bool_], tolerance_px: float
) -> float:
    """Share of both outlines that lies within a tolerance of the other one.

    NaN where the truth has no outline, such as one that fills the tile: then nothing says where it ends, and which
    objects are scored does not depend on the model.

    Args:
        predicted: bool (H, W).
        truth: bool (H, W).
        ignore: bool (H, W).
        tolerance_px: Distance between centres of pixels up to which outlines agree.
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
    """The box of a mask with a pixel around it, in which both outlines are what they are in the whole tile."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _near(line: NDArray[np.bool_], tolerance_px: float) -> NDArray[np.bool_]:
    if not line.any():
        return np.zeros_like(line)
    distance = cv2.distanceTransform((~line).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The distance of whole numbers of pixels, in float32, may exceed itself by a rounding.
    return np.asarray(distance <= tolerance_px + 1e-3)
