"""Bootstrap intervals over patients: objects of one patient are alike, so patients are drawn, not objects.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, percentile interval, of clusters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95
_SEED = 20_190


def mean_interval(values: NDArray[np.float64], patients: NDArray[np.str_]) -> tuple[float, float] | None:
    """A 95 % interval of the mean over objects.

    The draws depend on the number of patients alone, so the intervals of two models use the same ones.

    Args:
        values: float64 (n,), one an object; NaN is left out.
        patients: str (n,).

    Returns:
        Its ends, or None with fewer than two patients, of whom nothing can be drawn.
    """
    there = ~np.isnan(values)
    names, owner = np.unique(patients[there], return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(owner, values[there])
    counts = np.bincount(owner)
    generator = np.random.default_rng(_SEED)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
