"""The scores of every object under one model and prompt kind, and their means.

Axes: n objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.record import Record
from train.score.bootstrap import mean_interval
from train.score.metrics import MaskScores

MEASURES = ("dice", "iou", "surface_dice")
"""Columns whose means are reported."""

REPORTED_CLICKS = (0, 1, 3, 5, 7, 9)
"""Numbers of simulated clicks after which Dice is reported; the last number that was simulated is added."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores of n objects, column by column.

    Attributes:
        tile_index: int64 (n,), index of the object's tile in the store.
        object_id: int64 (n,), number of the object, unique within its tile.
        class_id: int64 (n,), class code of the object.
        patient: str (n,), patient of the tile.
        area_px: int64 (n,), number of true pixels that are not ignored.
        dice: float64 (n,), Dice after the prompt, 0 to 1.
        iou: float64 (n,), IoU after the prompt, 0 to 1.
        surface_dice: float64 (n,), surface Dice, 0 to 1; NaN without a tolerance, or if the truth has no outline.
        iou_estimate: float64 (n,), the model's own estimate of the IoU of its mask; NaN for baselines.
        clicks_dice: float64 (n, C + 1), Dice after 0 to C simulated clicks.
    """

    tile_index: NDArray[np.int64]
    object_id: NDArray[np.int64]
    class_id: NDArray[np.int64]
    patient: NDArray[np.str_]
    area_px: NDArray[np.int64]
    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    surface_dice: NDArray[np.float64]
    iou_estimate: NDArray[np.float64]
    clicks_dice: NDArray[np.float64]

    @classmethod
    def of_tile(
        cls,
        record: Record,
        scores: MaskScores,
        iou_estimate: NDArray[np.float64] | None = None,
        clicks_dice: NDArray[np.float64] | None = None,
    ) -> ScoreTable:
        """Make the table of one tile's objects.

        Args:
            record: The tile.
            scores: The scores of its O objects.
            iou_estimate: float64 (O,), the model's own IoU estimates; None for a baseline.
            clicks_dice: float64 (O, C + 1), Dice after 0 to C clicks; None if no clicks are simulated.
        """
        count = len(record.object_ids)
        return cls(
            tile_index=np.full(count, record.index),
            object_id=record.object_ids.astype(np.int64),
            class_id=record.class_ids.astype(np.int64),
            patient=np.full(count, record.patient),
            area_px=np.count_nonzero(record.segments & ~record.ignore, axis=(1, 2)).astype(np.int64),
            dice=scores.dice,
            iou=scores.iou,
            surface_dice=scores.surface_dice,
            iou_estimate=np.full(count, np.nan) if iou_estimate is None else iou_estimate,
            clicks_dice=scores.dice[:, None] if clicks_dice is None else clicks_dice,
        )

    @classmethod
    def joined(cls, parts: Sequence[ScoreTable]) -> ScoreTable:
        """Join tables, sorted by tile and object, so that the order of the parts does not matter."""
        columns = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        order = np.lexsort((columns["object_id"], columns["tile_index"]))
        return cls(**{name: values[order] for name, values in columns.items()})

    def summary(self, class_names: dict[int, str]) -> dict[str, Any]:
        """Compute means over objects with their intervals.

        Args:
            class_names: Class names by class code; classes without an object are left out.

        Returns:
            `{"overall": {...}, "classes": {NAME: {"dice", "iou", "n", "patients", "ci95", ...}}}`.
        """
        return {
            "overall": self._means(np.ones(len(self.dice), bool)),
            "classes": {
                name: self._means(self.class_id == code)
                for code, name in class_names.items()
                if (self.class_id == code).any()
            },
        }

    def _means(self, rows: NDArray[np.bool_]) -> dict[str, Any]:
        patients = self.patient[rows]
        measured = [name for name in MEASURES if not np.isnan(getattr(self, name)[rows]).all()]
        error = (self.iou_estimate - self.iou)[rows]
        # Surface Dice may be NaN for some objects: outlines are compared only if the resolution is known.
        means: dict[str, Any] = {name: float(np.nanmean(getattr(self, name)[rows])) for name in measured}
        means |= {"n": int(np.count_nonzero(rows)), "patients": len(set(patients.tolist()))}
        means["ci95"] = {name: mean_interval(getattr(self, name)[rows], patients) for name in measured}
        if not np.isnan(error).all():
            # The error of the model's own IoU estimate; a positive bias means that it estimates too high.
            off = {"absolute_error": np.abs(error), "bias": error}
            means["iou_estimate"] = {
                **{name: float(values.mean()) for name, values in off.items()},
                "ci95": {name: mean_interval(values, patients) for name, values in off.items()},
            }
        if self.clicks_dice.shape[1] > 1:
            last = self.clicks_dice.shape[1] - 1
            reported = sorted({last, *(clicks for clicks in REPORTED_CLICKS if clicks < last)})
            means["dice_after_clicks"] = {str(c): float(self.clicks_dice[rows, c].mean()) for c in reported}
        return means


def paired_difference(first: ScoreTable, second: ScoreTable) -> dict[str, Any]:
    """Compare the Dice of two tables of the same objects.

    Returns:
        `dice`, the mean of first minus second; `ci95`, its interval; `n`, the number of objects; `better_on`, the
        share of objects on which the first has the higher Dice.
    """
    assert np.array_equal(first.tile_index, second.tile_index)
    assert np.array_equal(first.object_id, second.object_id)
    difference = first.dice - second.dice
    return {
        "dice": float(difference.mean()),
        "ci95": mean_interval(difference, first.patient),
        "n": len(difference),
        "better_on": float(np.mean(difference > 0)),
    }
