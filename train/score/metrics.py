"""Score masks by Dice, IoU and the agreement of outlines, over the pixels that are not ignored.

Axes: O objects, H and W pixels, Q tolerances of the curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.score.surface_dice import CURVE_UM, TileOutlines


@dataclass(frozen=True)
class MaskScores:
    """Scores of O masks.

    Attributes:
        dice: float64 (O,), Dice of each mask, 0 to 1.
        iou: float64 (O,), IoU of each mask, 0 to 1.
        surface_dice: float64 (O,), surface Dice of each mask, 0 to 1; NaN if no tolerance is given or the truth has
            no outline that counts.
        surface_curve: float64 (O, Q), surface Dice at the tolerances of the curve.
    """

    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    surface_dice: NDArray[np.float64]
    surface_curve: NDArray[np.float64]


def score_masks(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    ignore: NDArray[np.bool_],
    outlines: TileOutlines | None = None,
) -> MaskScores:
    """Score masks against the truth. If both masks of an object are empty, Dice and IoU are 1.

    Args:
        predicted: bool (O, H, W), the predicted masks.
        truth: bool (O, H, W), the true masks.
        ignore: bool (H, W), True for pixels that are left out.
        outlines: Compares outlines in this tile; without it, they are not compared.
    """
    counts = ~ignore
    overlap = np.count_nonzero(predicted & truth & counts, axis=(1, 2))
    sizes = np.count_nonzero(predicted & counts, axis=(1, 2)) + np.count_nonzero(truth & counts, axis=(1, 2))
    dice = np.divide(2 * overlap, sizes, out=np.ones(len(sizes)), where=sizes > 0)
    agreement = np.full((len(dice), 1 + len(CURVE_UM)), np.nan)
    if outlines is not None:
        for row, (ours, theirs) in enumerate(zip(predicted, truth, strict=True)):
            agreement[row] = outlines.surface_dice(ours, theirs)
    return MaskScores(dice, dice / (2 - dice), agreement[:, 0], agreement[:, 1:])
