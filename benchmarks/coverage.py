"""Simulate how often 95 % intervals contain the truth: `python -m benchmarks.coverage`.

Scores are drawn to resemble scores of tissue: patients differ, a patient's classes differ, some patients lack a class,
and the numbers of objects vary widely. The true means are known, since effects and numbers are drawn independently.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from train.statistics.estimate import class_mean, object_mean, patient_mean

CLASS_MEANS = np.array([0.8, 0.7, 0.6])
HAS_CLASS = np.array([0.95, 0.9, 0.6])
OBJECTS_PER_PATIENT = np.array([8.0, 6.0, 3.0])
PATIENT_SD, CLASS_SD, OBJECT_SD = 0.08, 0.05, 0.15
RESAMPLES = 500

Scores = tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.int64]]


def draw_scores(generator: np.random.Generator, patients: int) -> Scores:
    """Draw the values, patients and classes of some patients' objects; each class occurs in at least two patients."""
    has = np.zeros((patients, 3), bool)
    while has.sum(0).min() < 2 or not has.any(1).all():
        has = generator.random(has.shape) < HAS_CLASS
    # Numbers of objects follow a geometric distribution.
    counts = generator.geometric(1 / OBJECTS_PER_PATIENT, has.shape) * has
    effects = generator.normal(0, PATIENT_SD, (patients, 1)) + generator.normal(0, CLASS_SD, has.shape)
    owner, code = np.repeat(np.indices(has.shape).reshape(2, -1), counts.ravel(), axis=1)
    values = (CLASS_MEANS + effects)[owner, code] + generator.normal(0, OBJECT_SD, len(owner))
    return values, owner.astype(str), code + 1


def bootstrap(values: NDArray[np.float64], patients: NDArray[np.str_], seed: int) -> tuple[float, float]:
    """Return the percentile interval of the object mean over resampled patients."""
    _, owner = np.unique(patients, return_inverse=True)
    sums, counts = np.bincount(owner, values), np.bincount(owner)
    groups = len(sums)
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), RESAMPLES)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), [0.025, 0.975])
    return float(low), float(high)


def truth(drawn: list[Scores]) -> dict[str, float]:
    """Return the means that the intervals should contain: those of the scores without any effect or noise."""
    expected = [(CLASS_MEANS[classes - 1], owners) for _, owners, classes in drawn]
    of_objects = float(np.concatenate([values for values, _ in expected]).mean())
    return {
        "class mean": float(CLASS_MEANS.mean()),
        "patient mean": float(np.mean([patient_mean(values, owners).value for values, owners in expected])),
        "object mean": of_objects,
        "bootstrap of objects": of_objects,
    }


def coverage(patients: int, draws: int, seed: int = 0) -> dict[str, float]:
    """Return the share of intervals that contain the truth, by mean."""
    drawn = [draw_scores(np.random.default_rng([seed, patients, draw]), patients) for draw in range(draws)]
    means = truth(drawn)
    hits = dict.fromkeys(means, 0)
    for draw, (values, owners, classes) in enumerate(drawn):
        intervals = {
            "class mean": class_mean(values, owners, classes).interval(),
            "patient mean": patient_mean(values, owners).interval(),
            "object mean": object_mean(values, owners).interval(),
            "bootstrap of objects": bootstrap(values, owners, draw),
        }
        for name, ends in intervals.items():
            assert ends is not None
            hits[name] += ends[0] <= means[name] <= ends[1]
    return {name: count / draws for name, count in hits.items()}


def main() -> None:
    """Print a table of coverage by number of patients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    draws = parser.parse_args().draws
    rows = {patients: coverage(patients, draws) for patients in (2, 3, 5, 10, 25, 45)}
    names = list(next(iter(rows.values())))
    print("| patients |", " | ".join(names), "|")
    print("| --- |" + " --- |" * len(names))
    for patients, row in rows.items():
        print(f"| {patients} |", " | ".join(f"{row[name]:.3f}" for name in names), "|")


if __name__ == "__main__":
    main()
