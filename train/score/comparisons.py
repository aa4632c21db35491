"""Differences between models on the same objects: one is named before, and the others are adjusted for their number.

Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979; the intervals have Bonferroni's level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from schemas.errors import ConfigError
from schemas.prompt_kinds import PromptKind
from train.score.score_table import ScoreTable
from train.score.tables import Tables
from train.statistics.estimate import FEW_PATIENTS, LEVEL, Estimate, class_mean, object_mean

STARTS = ("baseline:zero_shot", "baseline:untrained")
"""Names of a checkpoint's start; the default comparison is with the first that was scored."""


@dataclass(frozen=True)
class Comparison:
    """Two models under one prompt kind, on the same objects.

    Attributes:
        model: Name of the first model.
        minus: Name of the model whose scores are subtracted.
        kind: The prompt kind.
    """

    model: str
    minus: str
    kind: PromptKind

    def __str__(self) -> str:
        return f"{self.model},{self.minus},{self.kind}"


def planned_comparisons(
    models: Sequence[str], kinds: Sequence[PromptKind], primary: tuple[str, ...] | None = None
) -> list[Comparison]:
    """Return the comparisons of each model with the models after it and with every baseline, the primary one first.

    A start is also compared with the filled box, which tells how hard the task is without training.

    Args:
        models: Names of models and baselines.
        kinds: The prompt kinds.
        primary: Model, model to subtract and prompt kind of the comparison that was named before; None takes the first
            model against its start under the first prompt kind.

    Raises:
        ConfigError: `primary` names no comparison that is made.
    """
    pairs = [
        (model, minus)
        for model, minus in combinations(models, 2)
        if not model.startswith("baseline:") or (model.startswith(STARTS) and minus == "baseline:box")
    ]
    made = [Comparison(model, minus, kind) for kind in kinds for model, minus in pairs]
    if primary is None:
        starts = [pair for pair in made if pair.model == made[0].model and pair.minus.startswith(STARTS)]
        first = (starts or made)[:1]
    else:
        first = [pair for pair in made if (pair.model, pair.minus, pair.kind) == primary]
        if not first:
            named = "; ".join(map(str, made[:6])) or "a checkpoint with --checkpoint"
            raise ConfigError(f"--primary {','.join(primary)}", "is not compared", f"name one of these: {named}")
    return first + [pair for pair in made if pair not in first]


def paired_differences(tables: Tables, planned: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Compare models on the same objects.

    Args:
        tables: The scores of every object.
        planned: What `planned_comparisons` returned; the first is primary, and the others are adjusted.

    Returns:
        For each comparison the means of the difference in Dice, its interval and p, and whether it is the primary one.
    """
    estimates = [_difference(tables[pair.model][pair.kind], tables[pair.minus][pair.kind]) for pair in planned]
    p_values = [estimate.p_value() for estimate in estimates]
    p_values = p_values[:1] + holm(p_values[1:])
    adjusted_level = 1 - (1 - LEVEL) / max(len(planned) - 1, 1)
    return [
        {
            "prompt": pair.kind,
            "model": pair.model,
            "minus": pair.minus,
            **paired_difference(tables[pair.model][pair.kind], tables[pair.minus][pair.kind]),
            "role": "adjusted" if number else "primary",
            "class_mean": {
                "value": estimate.value,
                "interval": estimate.interval(adjusted_level if number else LEVEL),
                "level": adjusted_level if number else LEVEL,
                "p": p,
                "patients": estimate.patients,
                "few_patients": estimate.fewest < FEW_PATIENTS,
            },
        }
        for number, (pair, estimate, p) in enumerate(zip(planned, estimates, p_values, strict=True))
    ]


def paired_difference(first: ScoreTable, second: ScoreTable) -> dict[str, Any]:
    """Compare the Dice of two tables of the same objects, every object counted alike.

    Returns:
        `dice`, the mean of first minus second; `ci95`, its interval; `n`, the number of objects; `better_on`, the
        share of objects on which the first has the higher Dice.
    """
    assert np.array_equal(first.tile_index, second.tile_index)
    assert np.array_equal(first.object_id, second.object_id)
    difference = first.dice - second.dice
    return {
        "dice": float(difference.mean()),
        "ci95": object_mean(difference, first.patient).interval(),
        "n": len(difference),
        "better_on": float(np.mean(difference > 0)),
    }


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values so that the chance of one or more false differences is at most that of a single test.

    Args:
        p_values: The p of each comparison; None where there is none, which counts as a test all the same.

    Returns:
        The adjusted p values in the same order, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda number: _or_one(p_values[number]))
    adjusted: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for rank, number in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - rank) * _or_one(p_values[number])))
        adjusted[number] = None if p_values[number] is None else reached
    return adjusted


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p


def _difference(first: ScoreTable, second: ScoreTable) -> Estimate:
    return class_mean(first.dice - second.dice, first.patient, first.class_id)
