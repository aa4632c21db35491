"""Count the clicks that an object needs until its mask is good enough, as papers on interactive segmentation do.

Only clicks after the prompt count. Published counts also include the first click. So if the prompt is a click, add one
to compare with them.

Axes: n objects, C clicks.
Source: Sofiiuk et al., Reviving Iterative Training with Mask Guidance for Interactive Segmentation, 2021.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.statistics.estimate import object_mean

IOU_GOALS = (80, 85, 90)
"""IoU in percent that a mask must reach."""

MAX_CLICKS = 20
"""The published cap: an object that needs more clicks counts as a failure, and as this number of clicks."""

IOU_AFTER = (1, 3, 5)
"""Numbers of clicks after which the mean IoU is reported."""


def clicks_needed(clicks_iou: NDArray[np.float64], goal_percent: int) -> NDArray[np.int64]:
    """Count the clicks until the IoU first reaches a goal.

    Args:
        clicks_iou: float64 (n, C + 1), IoU after 0 to C clicks; clicks after `MAX_CLICKS` are ignored.
        goal_percent: The goal in percent.

    Returns:
        int64 (n,), 0 to C; -1 for an object that never reaches the goal.
    """
    # An IoU of exactly 4/5 may be stored a rounding error lower.
    reached = clicks_iou[:, : MAX_CLICKS + 1] >= goal_percent / 100 - 1e-9
    return np.where(reached.any(1), reached.argmax(1), -1)


def summarize_clicks(clicks_iou: NDArray[np.float64], patients: NDArray[np.str_]) -> dict[str, Any]:
    """Compute the number of clicks (NoC), the share of failures, and the mean IoU after some clicks.

    Args:
        clicks_iou: float64 (n, C + 1), IoU after 0 to C clicks.
        patients: str (n,), the patient of each object.

    Returns:
        `{"cap", "noc": {GOAL: {...}}, "failures": {GOAL: {...}}, "iou_after": {CLICKS: {...}}}`, each with `value` and
        `ci95`. `cap` is the number of clicks that stands for a failure in `noc`.
    """
    cap = min(clicks_iou.shape[1] - 1, MAX_CLICKS)
    found: dict[str, Any] = {"cap": cap, "noc": {}, "failures": {}, "iou_after": {}}
    for goal in IOU_GOALS:
        needed = clicks_needed(clicks_iou, goal)
        failed = needed < 0
        noc = object_mean(np.where(failed, cap, needed).astype(np.float64), patients)
        found["noc"][str(goal)] = {"value": noc.value, "ci95": noc.interval()}
        failures = object_mean(failed.astype(np.float64), patients)
        found["failures"][str(goal)] = {"value": failures.value, "ci95": failures.share_interval()}
    for count in IOU_AFTER:
        if count <= cap:
            iou = object_mean(clicks_iou[:, count], patients)
            found["iou_after"][str(count)] = {"value": iou.value, "ci95": iou.share_interval()}
    return found
