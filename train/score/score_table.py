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
from train.score.metrics import MaskScores
from train.score.surface_dice import CURVE_UM
from train.statistics.click_counts import summarize_clicks
from train.statistics.estimate import class_means, object_mean, patient_mean
from train.statistics.iou_estimates import summarize_estimates

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
        frame_id: str (n,), the ROI.
        roi_component: int64 (n,), number of the object's component in the ROI; 0 if it may have several.
        touches_edge: bool (n,), whether the object reaches the tile's edge, beyond which it may continue.
        area_px: int64 (n,), number of true pixels that are not ignored.
        dice: float64 (n,), Dice after the prompt, 0 to 1.
        iou: float64 (n,), IoU after the prompt, 0 to 1.
        surface_dice: float64 (n,), surface Dice, 0 to 1; NaN without a tolerance, or if the truth has no outline.
        surface_curve: float64 (n, Q), surface Dice at the tolerances of the curve; NaN where there is none.
        whole_iou: float64 (n,), IoU after the prompt in the whole tile, with the pixels that other tiles score.
        iou_estimate: float64 (n,), the model's own estimate of `whole_iou`; NaN for baselines.
        clicks_dice: float64 (n, C + 1), Dice after 0 to C simulated clicks.
        clicks_iou: float64 (n, C + 1), IoU after 0 to C simulated clicks.
    """

    tile_index: NDArray[np.int64]
    object_id: NDArray[np.int64]
    class_id: NDArray[np.int64]
    patient: NDArray[np.str_]
    frame_id: NDArray[np.str_]
    roi_component: NDArray[np.int64]
    touches_edge: NDArray[np.bool_]
    area_px: NDArray[np.int64]
    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    surface_dice: NDArray[np.float64]
    surface_curve: NDArray[np.float64]
    whole_iou: NDArray[np.float64]
    iou_estimate: NDArray[np.float64]
    clicks_dice: NDArray[np.float64]
    clicks_iou: NDArray[np.float64]

    @classmethod
    def of_tile(
        cls,
        record: Record,
        scores: MaskScores,
        iou_estimate: NDArray[np.float64] | None = None,
        clicks: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> ScoreTable:
        """Make the table of one tile's objects.

        Args:
            record: The tile.
            scores: The scores of its O objects.
            iou_estimate: float64 (O,), the model's own IoU estimates; None for a baseline.
            clicks: float64 (O, C + 1) each, Dice and IoU after 0 to C clicks; None if no clicks are simulated.
        """
        count = len(record.object_ids)
        return cls(
            tile_index=np.full(count, record.index),
            object_id=record.object_ids.astype(np.int64),
            class_id=record.class_ids.astype(np.int64),
            patient=np.full(count, record.patient),
            frame_id=np.full(count, record.frame_id),
            roi_component=record.roi_components.astype(np.int64),
            touches_edge=record.touches_edge,
            area_px=np.count_nonzero(record.segments & ~record.ignore, axis=(1, 2)).astype(np.int64),
            dice=scores.dice,
            iou=scores.iou,
            surface_dice=scores.surface_dice,
            surface_curve=scores.surface_curve,
            whole_iou=scores.iou,
            iou_estimate=np.full(count, np.nan) if iou_estimate is None else iou_estimate,
            clicks_dice=scores.dice[:, None] if clicks is None else clicks[0],
            clicks_iou=scores.iou[:, None] if clicks is None else clicks[1],
        )

    @classmethod
    def joined(cls, parts: Sequence[ScoreTable]) -> ScoreTable:
        """Join tables, sorted by tile and object, so that the order of the parts does not matter."""
        columns = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        order = np.lexsort((columns["object_id"], columns["tile_index"]))
        return cls(**{name: values[order] for name, values in columns.items()})

    def rows(self, chosen: NDArray[np.bool_]) -> ScoreTable:
        """Return the table of the chosen objects, bool (n,)."""
        return ScoreTable(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def summary(self, class_names: dict[int, str]) -> dict[str, Any]:
        """Compute means with their intervals.

        Args:
            class_names: Class names by class code; classes without an object are left out.

        Returns:
            `{"overall": {...}, "classes": {NAME: {"dice", "iou", "n", "patients", "ci95", ...}}}`. In the means `dice`,
            `iou` and `surface_dice`, every object has equal weight. `class_mean` and `patient_mean` hold other means of
            the same scores, which `train.statistics.estimate` describes; `class_mean` is the primary number.
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
        patients, classes = self.patient[rows], self.class_id[rows]
        values = {name: getattr(self, name)[rows] for name in MEASURES}
        # Surface Dice may be NaN for some objects: outlines are compared only if the resolution is known.
        values = {name: column for name, column in values.items() if not np.isnan(column).all()}
        by_object = {name: object_mean(column, patients) for name, column in values.items()}
        means: dict[str, Any] = {name: estimate.value for name, estimate in by_object.items()}
        means |= {"n": int(np.count_nonzero(rows)), "patients": len(set(patients.tolist()))}
        means["ci95"] = {name: estimate.share_interval() for name, estimate in by_object.items()}
        means["counts"] = {name: {"n": e.objects, "patients": e.patients} for name, e in by_object.items()}
        means["class_mean"] = class_means(values, patients, classes)
        means["patient_mean"] = {name: patient_mean(column, patients).as_json() for name, column in values.items()}
        curve = {f"{um:g}": self.surface_curve[rows, place] for place, um in enumerate(CURVE_UM)}
        means["surface_dice_by_um"] = class_means(curve, patients, classes)
        means["complete"] = self._complete(rows)
        estimates = self.iou_estimate[rows]
        if not np.isnan(estimates).any():
            means["iou_estimate"] = summarize_estimates(estimates, self.whole_iou[rows], patients)
        if self.clicks_dice.shape[1] > 1:
            last = self.clicks_dice.shape[1] - 1
            reported = sorted({last, *(clicks for clicks in REPORTED_CLICKS if clicks < last)})
            means["dice_after_clicks"] = {str(c): float(self.clicks_dice[rows, c].mean()) for c in reported}
            after = {str(c): self.clicks_dice[rows, c] for c in reported}
            means["class_mean_after_clicks"] = class_means(after, patients, classes)
            means["clicks"] = summarize_clicks(self.clicks_iou[rows], patients)
        return means

    def _complete(self, rows: NDArray[np.bool_]) -> dict[str, Any]:
        """Return the class means of the objects that reach no edge of their tile, so that they are certainly whole."""
        whole = rows & ~self.touches_edge
        patients, values = self.patient[whole], {name: getattr(self, name)[whole] for name in MEASURES}
        means = class_means(values, patients, self.class_id[whole])
        return {"n": int(whole.sum()), "patients": len(set(patients.tolist())), "class_mean": means}
