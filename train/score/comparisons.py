"""Compare models on the same objects.

One comparison, the primary one, is chosen in advance. The others are adjusted for multiple testing: p values by Holm, A
Simple Sequentially Rejective Multiple Test Procedure, 1979; intervals by Bonferroni.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from schemas.errors import ConfigError
from schemas.prompt_kinds import PromptKind
from train.choices import BASELINES, BaselineName
from train.model.names import BASELINE
from train.score.baselines import is_oracle
from train.score.score_table import ScoreTable
from train.score.tables import Tables
from train.statistics.estimate import FEW_PATIENTS, LEVEL, Estimate, class_mean, object_mean

STARTS = ("baseline:zero_shot", "baseline:untrained")
"""How the names of baselines begin that are initial weights."""


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


def own_start(model: str, models: Sequence[str], start_of: Mapping[str, str] | None = None) -> str | None:
    """Return the name of the start of a model; None for a baseline and for a model without a start.

    Args:
        model: Name of the model.
        models: Names of all models and baselines that are scored.
        start_of: The name of each model's start, for models that have one; None takes the first start that is scored.
    """
    if model.startswith(BASELINE):
        return None
    if start_of is None:
        return next((name for name in models if name.startswith(STARTS)), None)
    return start_of.get(model)


def planned_comparisons(
    models: Sequence[str],
    kinds: Sequence[PromptKind],
    primary: tuple[str, ...] | None = None,
    against: Sequence[str] = (),
    start_of: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Return the comparisons of each model with its own start and with the baselines, the primary one first.

    After scoring, `with_best_baseline` drops all baselines but the best one, because each comparison widens the
    intervals of the others. Models without a start and a baseline are compared with each other.

    Args:
        models: Names of models and baselines.
        kinds: The prompt kinds.
        primary: Model, model to subtract and prompt kind of the comparison that was chosen before scoring; None takes
            the first model against its start under the first prompt kind, or else against the baseline that sees as
            much of the truth as the prompt.
        against: Models or baselines that each model is compared with, in place of starts and baselines.
        start_of: The name of each model's start, for models that have one; None takes the first start that is scored.

    Raises:
        ConfigError: `primary` names no comparison that is made, `against` names no model, or it leaves nothing to
            compare.
    """
    for name in against:
        if name not in models:
            raise ConfigError(f"--against {name}", "is not scored", f"name one of these: {', '.join(models)}")
    own = [model for model in models if not model.startswith(BASELINE)]
    plain = [model for model in models if model.startswith(BASELINE) and not model.startswith(STARTS)]
    pairs: list[tuple[str, str]] = []
    for model in own:
        others = list(against) or list(filter(None, (own_start(model, models, start_of), *plain)))
        pairs += [(model, minus) for minus in others if minus != model and (minus, model) not in pairs]
    if not pairs and against:
        others = ", ".join(name for name in models if name not in against)
        remedy = f"name one of these: {others}" if own and others else "give another model with --checkpoint"
        raise ConfigError(f"--against {' --against '.join(against)}", "leaves no model to compare with it", remedy)
    if not pairs:
        pairs = list(combinations(own, 2))
    made = [Comparison(model, minus, kind) for kind in kinds for model, minus in pairs]
    if primary is None:
        first = _usual_primary(made)
    else:
        # Two models may be compared, too, if that was chosen before scoring.
        possible = [Comparison(m, minus, kind) for kind in kinds for m in models for minus in models if m != minus]
        # The names of models may contain commas, so the whole texts are compared.
        first = [pair for pair in possible if str(pair) == ",".join(primary)]
        if not first:
            named = "; ".join(map(str, made[:6])) or "a checkpoint with --checkpoint"
            raise ConfigError(f"--primary {','.join(primary)}", "is not a comparison", f"give one of these: {named}")
    return first + [pair for pair in made if pair not in first]


def _usual_primary(made: Sequence[Comparison]) -> list[Comparison]:
    """Return the first model's comparison with its start, or else with the best baseline that is fair; in a list."""
    if not made:
        return []
    model, kind = made[0].model, made[0].kind
    of_start = [pair for pair in made if pair.model == model and pair.minus.startswith(STARTS)]
    # Which baseline is best is not known before scoring. A disc is harder to beat than the whole image.
    fair: list[BaselineName] = [name for name in ("box", "disc", "image") if not is_oracle(name, kind)]
    rivals = [Comparison(model, f"{BASELINE}{name}", kind) for name in fair]
    return ([*of_start, *(pair for pair in rivals if pair in made)] or list(made))[:1]


def with_best_baseline(planned: Sequence[Comparison], tables: Tables, against: Sequence[str] = ()) -> list[Comparison]:
    """Keep only the comparison with the best baseline for each model and prompt kind.

    Baselines that see more of the truth than the prompt tells are not among them.

    Args:
        planned: What `planned_comparisons` returned; the first one stays.
        tables: The scores of every object.
        against: What the user asked for; those comparisons all stay.
    """
    kept: list[Comparison] = []
    for number, pair in enumerate(planned):
        is_plain = pair.minus.startswith(BASELINE) and not pair.minus.startswith(STARTS)
        if not number or not is_plain or pair.minus in against:
            kept.append(pair)
            continue
        rivals = [other.minus for other in planned if (other.model, other.kind) == (pair.model, pair.kind)]
        fair = [name for name in BASELINES if f"{BASELINE}{name}" in rivals and not is_oracle(name, pair.kind)]
        means = {f"{BASELINE}{name}": _class_mean_dice(tables[f"{BASELINE}{name}"][pair.kind]) for name in fair}
        if means and pair.minus == max(means, key=lambda name: means[name]):
            kept.append(pair)
    return kept


def _class_mean_dice(table: ScoreTable) -> float:
    return class_mean(table.dice, table.patient, table.class_id).value


def paired_differences(tables: Tables, planned: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Compare models on the same objects.

    Args:
        tables: The scores of every object.
        planned: The comparisons from `planned_comparisons`; the first is primary, and the others are adjusted.

    Returns:
        For each comparison, the mean difference in Dice with its interval and p value, and whether it is primary.
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
    """Compare the Dice of two tables of the same objects; every object has equal weight.

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


def against_start(
    model: str, start: str, scores: Mapping[PromptKind, ScoreTable], start_dice: Mapping[PromptKind, Sequence[float]]
) -> dict[str, Any]:
    """Compare a model with its start on the same objects; the first prompt kind is the primary comparison.

    Args:
        model: Name of the model.
        start: Name of its start.
        scores: Scores of the model, by prompt kind.
        start_dice: Dice of the start on the same objects, by prompt kind.

    Returns:
        What `differences_from` returns.
    """
    tables: Tables = {model: dict(scores), start: {}}
    for kind, table in scores.items():
        tables[start][kind] = replace(table, dice=np.array(start_dice[kind], np.float64))
    planned = [Comparison(model, start, kind) for kind in scores]
    return differences_from(model, start, paired_differences(tables, planned))


def differences_from(model: str, start: str, paired: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Choose the differences between a model and its start.

    Args:
        model: Name of the model.
        start: Name of its start.
        paired: What `paired_differences` returned.

    Returns:
        For each prompt kind, the difference of the class means with its interval and its number of patients.
    """
    kept = ("interval", "level", "patients", "few_patients")
    return {
        pair["prompt"]: {
            "start": start,
            "dice": pair["class_mean"]["value"],
            **{key: pair["class_mean"][key] for key in kept},
        }
        for pair in paired
        if (pair["model"], pair["minus"]) == (model, start)
    }


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values so that the chance of one or more false differences is at most that of a single test.

    Args:
        p_values: The p value of each comparison. A comparison without one has None, but still counts as a test.

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
