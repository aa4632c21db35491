"""Say how much a score depends on single institutions, by leaving out one at a time.

Axes: n objects, I institutions.
Source: the delete-one-group jackknife of Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.statistics.estimate import LEVEL, class_mean


def leave_one_out(
    values: NDArray[np.float64],
    patients: NDArray[np.str_],
    classes: NDArray[np.int64],
    institutions: NDArray[np.str_],
) -> dict[str, Any] | None:
    """Compute the class mean without each institution, and the interval that follows from these means.

    Args:
        values: float64 (n,), one value for each object.
        patients: str (n,), the patient of each object.
        classes: int64 (n,), the class code of each object.
        institutions: str (n,), the institution of each object.

    Returns:
        `without`, the class mean without each institution, and `ci95`, the jackknife interval with I - 1 degrees of
        freedom, or None if a class is only in one institution, so that without it the mean would be over other classes.
        None if there is only one institution.
    """
    names = np.unique(institutions)
    if len(names) < 2:
        return None
    kept = {str(name): institutions != name for name in names}
    without = {name: class_mean(values[rows], patients[rows], classes[rows]).value for name, rows in kept.items()}
    every = len(np.unique(classes))
    ends: tuple[float, float] | None = None
    if all(len(np.unique(classes[rows])) == every for rows in kept.values()):
        # Imported only here, because the import takes long and a training run never asks for an interval.
        from scipy import special

        means, count = np.array(list(without.values())), len(names)
        error = math.sqrt((count - 1) / count * float(np.sum((means - means.mean()) ** 2)))
        reach = float(special.stdtrit(count - 1, (1 + LEVEL) / 2)) * error
        middle = class_mean(values, patients, classes).value
        ends = max(middle - reach, 0.0), min(middle + reach, 1.0)
    return {"without": without, "ci95": ends}
