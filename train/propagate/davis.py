"""The measures of DAVIS for a mask in a frame: J, the IoU of its region, and F, the F-score of its outline.

Source: Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, 2016, section 4.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

OUTLINE_TOLERANCE = 0.008
"""How far two outlines may be apart, as a share of the image's diagonal."""

Mask = NDArray[np.bool_]


def region_j(mask: Mask, truth: Mask, ignore: Mask) -> float:
    """Return the IoU of a mask and its truth over the pixels that count; 1 if both are empty.

    Args:
        mask: bool (H, W).
        truth: bool (H, W).
        ignore: The pixels that do not count, bool (H, W).
    """
    union = np.count_nonzero((mask | truth) & ~ignore)
    return np.count_nonzero(mask & truth & ~ignore) / union if union else 1.0


def outline_f(mask: Mask, truth: Mask, ignore: Mask) -> float:
    """Return the F-score of a mask's outline; 1 if both masks are empty, 0 if one of them is.

    A pixel of one outline is right if the other outline is within `OUTLINE_TOLERANCE` of the diagonal, rounded up to
    whole pixels.

    Args:
        mask: bool (H, W).
        truth: bool (H, W).
        ignore: The pixels that do not count, bool (H, W); they are left out of both masks.
    """
    ours, theirs = _outline(mask & ~ignore), _outline(truth & ~ignore)
    if not ours.any() or not theirs.any():
        return float(not ours.any() and not theirs.any())
    reach_px = math.ceil(OUTLINE_TOLERANCE * math.hypot(*mask.shape))
    y, x = np.mgrid[-reach_px : reach_px + 1, -reach_px : reach_px + 1]
    disk = (x**2 + y**2 <= reach_px**2).astype(np.uint8)
    precision = _share(ours, cv2.dilate(theirs.view(np.uint8), disk) > 0)
    recall = _share(theirs, cv2.dilate(ours.view(np.uint8), disk) > 0)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share(outline: Mask, near: Mask) -> float:
    return np.count_nonzero(outline & near) / np.count_nonzero(outline)


def _outline(mask: Mask) -> Mask:
    """Mark the pixels that differ from the pixel to the right, below, or both; at the edge there is no such pixel."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    center = padded[:-1, :-1]
    return (center != padded[:-1, 1:]) | (center != padded[1:, :-1]) | (center != padded[1:, 1:])
