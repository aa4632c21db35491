"""Write the scores of followed objects to `propagation.json` and `propagation.csv`, and print their means."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from schemas.store.store import Store
from train.model.names import SEEN_MARK
from train.model.predictor import MaskPredictor
from train.propagate.davis import OUTLINE_TOLERANCE
from train.propagate.score import ObjectScore, summarize


def write_scores(
    scores: list[ObjectScore],
    store: Store,
    predictors: dict[str, MaskPredictor],
    seen: dict[str, Any],
    split: str,
    kind: str,
    out: Path,
) -> dict[str, Any]:
    """Write both files.

    Args:
        scores: The scores of all objects.
        store: The store.
        predictors: The models by name.
        seen: The scored patients that a model has seen, by the name of the model.
        split: The split that was scored.
        kind: The prompt in the first frame.
        out: The folder to write to.

    Returns:
        The content of `propagation.json`.
    """
    protocol = {
        "store": store.path,
        "store_fingerprint": store.manifest.config_fingerprint,
        "weights": {name: asdict(model.weights) for name, model in predictors.items() if model.weights},
        "split": split,
        "prompt": kind,
        "outline_tolerance": OUTLINE_TOLERANCE,
        "objects": "those on the first frame that shows an object",
        "frames": "those with a mask after the first prompt, without the last frame",
    }
    result = {"protocol": protocol, "seen_patients": seen, "models": summarize(scores)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "propagation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    with (out / "propagation.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([field.name for field in fields(ObjectScore)])
        rows.writerows(asdict(score).values() for score in scores)
    return result


def table(result: dict[str, Any]) -> list[str]:
    """Return one line for each model, with J, F, their mean and the number of objects, and notes below."""
    lines = [f"{'':32}{'J&F':>7}{'J':>7}{'F':>7}{'n':>6}"]
    for name, means in result["models"].items():
        found = means["overall"]
        marked = name + SEEN_MARK * (name in result["seen_patients"])
        lines.append(f"{marked:32}{found['j_and_f']:7.3f}{found['j']:7.3f}{found['f']:7.3f}{found['n']:6}")
    lines += [f"{SEEN_MARK} {name} was {patients['said']}" for name, patients in result["seen_patients"].items()]
    return lines
