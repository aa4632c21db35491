"""Scores of masks: Dice and IoU over the pixels that count, gathered by class.

Axes: O objects, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MaskScores:
    """Scores of O masks.

    Attributes:
        dice: float64 (O,).
        iou: float64 (O,).
    """

    dice: NDArray[np.float64]
    iou: NDArray[np.float64]


def score_masks(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], ignore: NDArray[np.bool_]) -> MaskScores:
    """Score masks against the truth; two empty masks agree fully.

    Args:
        predicted: bool (O, H, W).
        truth: bool (O, H, W).
        ignore: bool (H, W), pixels left out.
    """
    counts = ~ignore
    overlap = np.count_nonzero(predicted & truth & counts, axis=(1, 2))
    sizes = np.count_nonzero(predicted & counts, axis=(1, 2)) + np.count_nonzero(truth & counts, axis=(1, 2))
    dice = np.divide(2 * overlap, sizes, out=np.ones(len(sizes)), where=sizes > 0)
    return MaskScores(dice, dice / (2 - dice))


@dataclass
class ScoreTable:
    """Scores of objects as they come in.

    Attributes:
        dice: One an object.
        iou: One an object.
        class_ids: One an object.
    """

    dice: list[float] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    class_ids: list[int] = field(default_factory=list)

    def add(self, scores: MaskScores, class_ids: NDArray[np.int32]) -> None:
        """Add the objects of one tile."""
        self.dice.extend(scores.dice.tolist())
        self.iou.extend(scores.iou.tolist())
        self.class_ids.extend(class_ids.tolist())

    def extend(self, other: ScoreTable) -> None:
        """Add the objects of another table."""
        self.dice.extend(other.dice)
        self.iou.extend(other.iou)
        self.class_ids.extend(other.class_ids)

    def summary(self, class_names: dict[int, str]) -> dict[str, Any]:
        """Means over objects: `{"overall": {...}, "classes": {name: {"dice", "iou", "n"}}}`."""
        return {
            "overall": self._means(slice(None)),
            "classes": {
                name: self._means(np.flatnonzero(np.array(self.class_ids) == code))
                for code, name in class_names.items()
                if code in self.class_ids
            },
        }

    def _means(self, rows: slice | NDArray[np.int64]) -> dict[str, float | int]:
        dice, iou = np.array(self.dice)[rows], np.array(self.iou)[rows]
        return {"dice": float(dice.mean()), "iou": float(iou.mean()), "n": len(dice)}
