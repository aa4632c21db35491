"""Bootstrap intervals that resample patients, and not objects, because objects of one patient resemble each other.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993: the percentile interval, here with patients as
clusters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""Number of bootstrap resamples."""

LEVEL = 0.95
"""Confidence level of the interval."""

_SEED = 20_190


def mean_interval(values: NDArray[np.float64], patients: NDArray[np.str_]) -> tuple[float, float] | None:
    """Compute a 95 % interval of the mean over objects.

    The random draws depend only on the number of patients, so the intervals of two models use the same draws.

    Args:
        values: float64 (n,), one value for each object; NaN values are left out.
        patients: str (n,), the patient of each object.

    Returns:
        The lower and the upper end, or None if fewer than two patients have a value, since then resampling patients
        tells nothing.
    """
    measured = ~np.isnan(values)
    names, owner = np.unique(patients[measured], return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(owner, values[measured])
    counts = np.bincount(owner)
    generator = np.random.default_rng(_SEED)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
