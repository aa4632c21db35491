"""Compute means of scores with intervals over patients, because objects of one patient resemble each other.

Three means answer three questions. The class mean is the primary number: classes have equal weight, and within a class
patients have equal weight. In the patient mean, patients have equal weight. In the object mean, objects do.

Axes: n objects, G patients, C classes.
Sources: Student's t with few clusters as in Cameron and Miller, A Practitioner's Guide to Cluster-Robust Inference,
2015; the object mean is the ratio estimator of Cochran, Sampling Techniques, 1977, chapter 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Confidence level of an interval."""

FEW_PATIENTS = 5
"""With fewer patients, an interval says little, and the number is shown with the note "few patients"."""


@dataclass(frozen=True)
class Estimate:
    """A mean and what is known about its error.

    Attributes:
        value: The mean.
        error: Standard error of the mean over samples of patients; None if `fewest` is less than two.
        objects: Number of objects with a value.
        patients: G, the number of patients with a value.
        fewest: The smallest number of patients that any part of the mean has, such as a class. Student's t has one
            degree of freedom less.
    """

    value: float
    error: float | None
    objects: int
    patients: int
    fewest: int

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Return the lower and the upper end of the interval, or None without a standard error."""
        if self.error is None:
            return None
        # Imported only here, because the import takes long and most commands need no interval.
        from scipy import special

        reach = float(special.stdtrit(self.fewest - 1, (1 + level) / 2)) * self.error
        return self.value - reach, self.value + reach

    def p_value(self) -> float | None:
        """Return the two-sided p value of the hypothesis that the mean is 0, or None without a standard error."""
        if self.error is None:
            return None
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        from scipy import special

        return float(2 * special.stdtr(self.fewest - 1, -abs(self.value) / self.error))

    def share_interval(self) -> tuple[float, float] | None:
        """Return the interval of a mean that lies between 0 and 1."""
        ends = self.interval()
        return None if ends is None else (max(ends[0], 0.0), min(ends[1], 1.0))

    def as_json(self) -> dict[str, Any]:
        """Return the mean of a score as `metrics.json` holds it."""
        return {
            "value": self.value,
            "ci95": self.share_interval(),
            "n": self.objects,
            "patients": self.patients,
            "fewest_patients": self.fewest,
            "few_patients": self.fewest < FEW_PATIENTS,
        }


def object_mean(values: NDArray[np.float64], patients: NDArray[np.str_]) -> Estimate:
    """Estimate the mean over objects; its standard error is that of a ratio of sums over patients.

    Args:
        values: float64 (n,), one value for each object; NaN values are left out.
        patients: str (n,), the patient of each object.
    """
    values, owners, count = _measured(values, patients)
    mean = float(values.mean()) if len(values) else math.nan
    if count < 2:
        return Estimate(mean, None, len(values), count, count)
    off = np.bincount(owners, values - mean)
    error = math.sqrt(count / (count - 1) * float(off @ off)) / len(values)
    return Estimate(mean, error, len(values), count, count)


def patient_mean(values: NDArray[np.float64], patients: NDArray[np.str_]) -> Estimate:
    """Estimate the mean over patients of each patient's mean; the arguments are those of `object_mean`."""
    return class_mean(values, patients, np.zeros(len(values), np.int64))


def class_mean(values: NDArray[np.float64], patients: NDArray[np.str_], classes: NDArray[np.int64]) -> Estimate:
    """Estimate the mean over classes of the mean over the patients that have the class.

    A patient may have several classes, so its deviations in all classes are added before they are squared.

    Args:
        values: float64 (n,), one value for each object; NaN values are left out.
        patients: str (n,), the patient of each object.
        classes: int64 (n,), the class code of each object.
    """
    kept = ~np.isnan(values)
    classes = classes[kept]
    values, owners, count = _measured(values, patients)
    codes = np.unique(classes)
    if not len(codes):
        return Estimate(math.nan, None, 0, 0, 0)
    parts, means, sizes = np.zeros(count), np.zeros(len(codes)), np.zeros(len(codes), np.int64)
    for place, code in enumerate(codes):
        rows = classes == code
        objects = np.bincount(owners[rows], minlength=count)
        has = objects > 0
        own = np.bincount(owners[rows], values[rows], count)[has] / objects[has]
        means[place], sizes[place] = own.mean(), len(own)
        if len(own) > 1:
            # The factor makes the variance of each class unbiased, as n - 1 does in a sample variance.
            unbiased = math.sqrt(len(own) / (len(own) - 1))
            parts[has] += unbiased * (own - own.mean()) / (len(own) * len(codes))
    fewest = int(sizes.min())
    error = math.sqrt(float(parts @ parts)) if fewest > 1 else None
    return Estimate(float(means.mean()), error, len(values), count, fewest)


def class_means(
    columns: Mapping[str, NDArray[np.float64]], patients: NDArray[np.str_], classes: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Return the class mean of each column, as `metrics.json` holds it; a column without any value is left out.

    Args:
        columns: float64 (n,) each, by name.
        patients: str (n,), the patient of each value.
        classes: int64 (n,), the class code of each value.
    """
    return {
        name: class_mean(values, patients, classes).as_json()
        for name, values in columns.items()
        if not np.isnan(values).all()
    }


def _measured(
    values: NDArray[np.float64], patients: NDArray[np.str_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Return the values that are not NaN, the index of the patient of each value, and the number of patients."""
    kept = ~np.isnan(values)
    names, owners = np.unique(patients[kept], return_inverse=True)
    return values[kept], owners.astype(np.int64), len(names)
