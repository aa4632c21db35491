"""Scores of masks over the pixels that count: Dice, IoU, and the agreement of outlines.

Axes: O objects, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.score.surface_dice import surface_dice


@dataclass(frozen=True)
class MaskScores:
    """Scores of O masks.

    Attributes:
        dice: float64 (O,).
        iou: float64 (O,).
        surface_dice: float64 (O,), NaN where no tolerance is given or the truth has no outline.
    """

    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    surface_dice: NDArray[np.float64]


def score_masks(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    ignore: NDArray[np.bool_],
    tolerance_px: float | None = None,
) -> MaskScores:
    """Score masks against the truth; two empty masks agree fully.

    Args:
        predicted: bool (O, H, W).
        truth: bool (O, H, W).
        ignore: bool (H, W), pixels left out.
        tolerance_px: Of outlines; they are not compared without it.
    """
    counts = ~ignore
    overlap = np.count_nonzero(predicted & truth & counts, axis=(1, 2))
    sizes = np.count_nonzero(predicted & counts, axis=(1, 2)) + np.count_nonzero(truth & counts, axis=(1, 2))
    dice = np.divide(2 * overlap, sizes, out=np.ones(len(sizes)), where=sizes > 0)
    outlines = np.full(len(dice), np.nan)
    if tolerance_px is not None:
        pairs = zip(predicted, truth, strict=True)
        outlines = np.array([surface_dice(ours, theirs, ignore, tolerance_px) for ours, theirs in pairs], float)
    return MaskScores(dice, dice / (2 - dice), outlines)
