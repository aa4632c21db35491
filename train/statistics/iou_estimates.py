"""Measure how well a model's own estimates of the IoU of its masks agree with the true IoU.

Axes: n objects.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.statistics.estimate import object_mean

_BINS = 10
"""Number of bins in which estimates are compared with the true IoU; all have equal width between 0 and 1."""


def summarize_estimates(
    estimates: NDArray[np.float64], ious: NDArray[np.float64], patients: NDArray[np.str_]
) -> dict[str, Any]:
    """Compare estimates with the true IoU.

    Args:
        estimates: float64 (n,), the model's estimates; none is NaN.
        ious: float64 (n,), the true IoU of each mask.
        patients: str (n,), the patient of each object.

    Returns:
        `absolute_error` and `bias` (positive if the model estimates too high) with `ci95`; `constant_error`, the
        absolute error of the best constant; `spearman`, the rank correlation, or None if either side is constant; and
        `reliability`, mean estimate, mean IoU and number of objects of each bin that has an object.
    """
    error = estimates - ious
    off = {"absolute_error": object_mean(np.abs(error), patients), "bias": object_mean(error, patients)}
    bins = np.clip((estimates * _BINS).astype(np.int64), 0, _BINS - 1)
    return {
        **{name: estimate.value for name, estimate in off.items()},
        "ci95": {name: estimate.interval() for name, estimate in off.items()},
        "constant_error": float(np.abs(ious - np.median(ious)).mean()),
        "spearman": _rank_correlation(estimates, ious),
        "reliability": [
            {"estimate": float(estimates[own].mean()), "iou": float(ious[own].mean()), "n": int(own.sum())}
            for own in (bins == number for number in np.unique(bins))
        ],
    }


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return Spearman's rank correlation, or None if all values of one side are equal."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each value from 1 on; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
