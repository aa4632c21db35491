"""Find runs of the same settings with other seeds or folds, and say how much their scores differ.

The interval of one run covers only the choice of patients. Another seed gives other weights and other scores, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.model.checkpoint import load_checkpoint
from train.model.names import NamedCheckpoint

_FREE = (
    *("seed", "device", "workers", "compile", "checkpoint_activations", "cache_features", "report"),
    *("keep_previous", "save_every_steps"),
)
"""Settings in which runs of the same settings may differ: the seed, and what changes no score."""

Runs = dict[str, list[tuple[str, str]]]
"""For each kind of run its models: their names, and their seed and data as text."""


def runs_of(checkpoints: Sequence[NamedCheckpoint]) -> Runs:
    """Group checkpoints of `bcss-train fit` by their settings and by their place in the run, such as `best`.

    The key of a group is the JSON of these settings. Official checkpoints record no settings, and are left out.
    """
    groups: Runs = {}
    for item in checkpoints:
        content = load_checkpoint(item.path)
        config, origin = content.get("config"), content.get("origin")
        if isinstance(config, dict) and isinstance(origin, dict):
            settings = {name: value for name, value in config.items() if name not in _FREE}
            own = json.dumps([config.get("seed"), origin.get("data_sha256")], default=str)
            key = json.dumps([item.path.stem, settings], sort_keys=True, default=str)
            groups.setdefault(key, []).append((item.name, own))
    return groups


def repeated_runs(runs: Runs, models: dict[str, Any]) -> list[dict[str, Any]]:
    """Compute mean and spread of the primary number over runs of the same settings.

    Args:
        runs: What `runs_of` returned.
        models: `models` of `metrics.json`.

    Returns:
        For each group of two or more runs with different seeds or data: `models`, their names, and `prompts`, for each
        prompt kind `mean`, `sd` (with n - 1), `lowest` and `highest` of the class mean of Dice.
    """
    found: list[dict[str, Any]] = []
    for members in runs.values():
        distinct = {own: name for name, own in reversed(members)}
        names = [name for name, _ in members if name in distinct.values()]
        if len(names) < 2:
            continue
        prompts: dict[str, Any] = {}
        for kind in models[names[0]]:
            dice = np.array([models[name][kind]["overall"]["class_mean"]["dice"]["value"] for name in names])
            ends = {"lowest": float(dice.min()), "highest": float(dice.max())}
            prompts[kind] = {"mean": float(dice.mean()), "sd": float(dice.std(ddof=1)), **ends}
        found.append({"models": names, "prompts": prompts})
    return found
