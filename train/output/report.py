"""Write `report.html`: one file with scores, plots, objects and training curves that a browser shows offline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from schemas.store.store import Store
from train.model.names import BASELINE, ORACLE_NOTE, SEEN_MARK, without_dots
from train.model.predictor import MaskPredictor
from train.output.console_table import mark_of
from train.output.interval_text import class_mean_interval, interval_text
from train.output.object_pictures import object_pictures
from train.plot.figures import Figure, score_figures
from train.plot.training_curves import training_curves
from train.runtime.run_log import METRICS_FILE
from train.score.evaluate import Evaluation
from train.score.protocol import ScoringProtocol
from train.statistics.click_counts import IOU_GOALS

OVERALL = "all classes"
"""Used instead of a class name in the rows for all objects."""

_HEADS = (
    "model",
    "prompt",
    "Dice, class mean",
    "Dice",
    "IoU",
    "surface Dice",
    "IoU estimate off by",
    "objects",
    "patients",
)
_TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Fact:
    """One row of a table of facts.

    Attributes:
        table: Heading of the table.
        name: Name of the fact.
        text: The fact.
    """

    table: str
    name: str
    text: str


@dataclass(frozen=True)
class _Cell:
    """One cell of the table of scores.

    Attributes:
        value: The number that the table is sorted by; NaN if there is none.
        text: The number as it is shown.
        interval: The 95 % interval as it is shown; empty if there is none.
    """

    value: float
    text: str
    interval: str = ""


def write_report(
    path: Path,
    title: str,
    store: Store,
    evaluation: Evaluation | None = None,
    predictors: dict[str, MaskPredictor] | None = None,
    protocol: ScoringProtocol | None = None,
    run: Path | None = None,
    lead: str = "",
    more_facts: Sequence[Fact] = (),
    command: str = "",
) -> None:
    """Write the report.

    Args:
        path: The file to write.
        title: The heading.
        store: The store that was scored or trained on.
        evaluation: The scores; without them, the report shows only the training curves.
        predictors: The models by name; the first one predicts the objects that are shown.
        protocol: The protocol of the evaluation.
        run: Folder of a training run whose curves are shown; None leaves them out.
        lead: First sentence below the heading; empty leaves it out.
        more_facts: Facts that are shown in tables below the scores.
        command: The command line that made the report, if the evaluation does not hold it; empty leaves it out.
    """
    figures: list[Figure] = []
    tables: dict[str, list[Fact]] = {}
    for fact in more_facts:
        tables.setdefault(fact.table, []).append(fact)
    context: dict[str, Any] = {
        "title": title,
        "lead": lead,
        "figures": figures,
        "tables": tables,
        "facts": f"{store.path}: {store.summary}",
    }
    if evaluation is not None:
        context |= _scores(evaluation)
        figures += score_figures(store, evaluation)
        if predictors and protocol:
            context["drawn"] = next(iter(predictors))
            context["objects"] = object_pictures(store, evaluation, predictors, protocol)
    if command:
        context["command"] = command
    if run is not None:
        figures.append(Figure(f"Training of {without_dots(run).name}", training_curves(run)))
    loader = jinja2.PackageLoader("train.output", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(environment.get_template(_TEMPLATE).render(context), encoding="utf-8")


def run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that wrote a checkpoint, or None if that folder has no log of a run."""
    run = checkpoint.resolve().parent.parent
    return run if (run / METRICS_FILE).exists() else None


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    """Collect the values that the template shows above the figures."""
    result = evaluation.result
    seen = result["seen_patients"]
    rows: list[dict[str, Any]] = [
        {
            "model": model,
            "prompt": kind,
            # A class may have the name that the page gives to all classes together.
            "class_name": name if means is scores["overall"] or name != OVERALL else f"{name} (a class)",
            "is_baseline": model.startswith(BASELINE),
            "cells": _cells(means, mark_of(result, model, kind)),
        }
        for model, kinds in result["models"].items()
        for kind, scores in kinds.items()
        for name, means in ((OVERALL, scores["overall"]), *scores["classes"].items())
    ]
    # A column without a number in any row is left out, such as surface Dice where the resolution is not known.
    columns = zip(*(row["cells"] for row in rows), strict=True)
    used = [True, True, *(any(cell.text != "-" for cell in column) for column in columns)]
    for row in rows:
        row["cells"] = [cell for cell, shown in zip(row["cells"], used[2:], strict=True) if shown]
    protocol = result["protocol"]
    return {
        "facts": _facts(result),
        "weights": [f"{name}: {file['path']}, SHA-256 {file['sha256']}" for name, file in protocol["weights"].items()],
        "command": result.get("made_by", {}).get("command", ""),
        "heads": [head for head, shown in zip(_HEADS, used, strict=True) if shown],
        "rows": rows,
        "classes": list(dict.fromkeys([OVERALL, *(row["class_name"] for row in rows)])),
        "clicks": [_click_row(model, kind, scores["overall"], seen) for model, kind, scores in _with_clicks(result)],
        "goals": IOU_GOALS,
        "notes": [
            *(f"{SEEN_MARK} {name} was {patients['said']}" for name, patients in seen.items()),
            *([ORACLE_NOTE] if any(result["oracles"].values()) else []),
        ],
        "rois": list(_roi_rows(result)),
        "jitter": list(_jitter_rows(result)),
        "repeats": [
            {"models": ", ".join(group["models"]), "runs": len(group["models"]), "prompt": kind, **spread}
            for group in result.get("repeats", [])
            for kind, spread in group["prompts"].items()
        ],
        "patients_by_institution": result.get("institutions", {}).get("patients", {}),
        "institutions": list(_institution_rows(result)),
        "pairs": [_pair(pair, result) for pair in result["paired"]],
    }


def _with_clicks(result: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the model, the prompt kind and the scores where clicks were simulated; baselines get no clicks."""
    for model, kinds in result["models"].items():
        for kind, scores in kinds.items():
            if "clicks" in scores["overall"]:
                yield model, kind, scores


def _roi_rows(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table of stitched ROIs; there are none if ROIs were not stitched."""
    for model, kinds in result.get("rois", {}).items():
        for kind, scores in kinds.items():
            mark, means = mark_of(result, model, kind), scores["class_mean"]
            cells = [
                _Cell(mean["value"], f"{mean['value']:.3f}{mark}", class_mean_interval(mean, "ci95", ".3f"))
                if (mean := means.get(name))
                else _Cell(math.nan, "-")
                for name in ("dice", "surface_dice")
            ]
            yield {"model": model, "prompt": kind, "cells": cells, "rois": scores["rois"]}


def _institution_rows(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table of institutions."""
    for model, kinds in result.get("institutions", {}).get("models", {}).items():
        for kind, found in kinds.items():
            mark, without = mark_of(result, model, kind), found["without"]
            low, high = min(without, key=without.__getitem__), max(without, key=without.__getitem__)
            yield {
                "model": model,
                "prompt": kind,
                "cell": _dice_cell(result["models"][model][kind]["overall"], mark),
                "interval": interval_text(found["ci95"], ".3f") or "a class in only one institution",
                "low": f"{without[low]:.3f}{mark} without {low}",
                "high": f"{without[high]:.3f}{mark} without {high}",
            }


def _jitter_rows(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table of moved prompts, after a row of exact prompts for each model and prompt kind."""
    for model, kinds in result.get("jitter", {}).items():
        for kind, by_share in kinds.items():
            mark = mark_of(result, model, kind)
            exact = _dice_cell(result["models"][model][kind]["overall"], mark)
            yield {"model": model, "prompt": kind, "moved": "exact", "cells": [exact, _Cell(math.nan, "")]}
            for share, scores in by_share.items():
                change = scores["change"]
                difference = class_mean_interval(change, "ci95", "+.3f")
                cells = [
                    _dice_cell(scores["overall"], mark),
                    _Cell(change["value"], f"{change['value']:+.3f}{mark}", difference),
                ]
                yield {"model": model, "prompt": kind, "moved": f"up to {float(share):.3g}", "cells": cells}


def _dice_cell(means: dict[str, Any], mark: str) -> _Cell:
    """Return the cell of the primary number."""
    dice = means["class_mean"]["dice"]
    return _Cell(dice["value"], f"{dice['value']:.3f}{mark}", class_mean_interval(dice, "ci95", ".3f"))


def _click_row(model: str, kind: str, overall: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """Format the results of simulated clicks of one model under one prompt kind."""
    mark, clicks = SEEN_MARK if model in seen else "", overall["clicks"]

    def cell(entry: dict[str, Any], form: str) -> _Cell:
        return _Cell(entry["value"], f"{entry['value']:{form}}{mark}", interval_text(entry["ci95"], form))

    needed = [cell(clicks["noc"][str(goal)], ".2f") for goal in IOU_GOALS]
    failed = [cell(clicks["failures"][str(goal)], ".0%") for goal in IOU_GOALS]
    after = ", ".join(f"{entry['value']:.3f} after {count}" for count, entry in clicks["iou_after"].items())
    return {
        "model": model,
        "prompt": kind,
        "cells": [*needed, *failed],
        "after": f"{after}{mark}",
        "cap": clicks["cap"],
    }


def _facts(result: dict[str, Any]) -> str:
    """Describe in one line what was scored."""
    asked = result["protocol"]
    facts = f"{asked['store']}, split {asked['split']}, {asked['tiles']} tiles of {asked['resolution_px']} px"
    scored = [scores["overall"] for kinds in result["models"].values() for scores in kinds.values()]
    # Without a known resolution, outlines are not compared.
    if any("surface_dice" in means for means in scored):
        facts += f"; surface tolerance {asked['surface_tolerance_um']} µm"
    return facts + ("; mean of eight flips and turns" if asked["tta"] else "")


def _pair(pair: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Format the difference between two models."""
    mean = pair["class_mean"]
    model, minus = (mark_of(result, pair[side], pair["prompt"]) for side in ("model", "minus"))
    mark = model or minus
    return {
        **pair,
        "dice": f"{mean['value']:+.3f}{mark}",
        "interval": class_mean_interval(mean, "interval", "+.3f"),
        "level": f"({mean['level']:.2%})" if mean["interval"] else "",
        "p": "-" if mean["p"] is None else "< 0.001" if mean["p"] < 0.0005 else f"{mean['p']:.3f}",
        "by_object": f"{pair['dice']:+.3f}{mark}",
        "better_on": f"{pair['better_on']:.0%}",
    }


def _cells(means: dict[str, Any], mark: str) -> list[_Cell]:
    """Make the cells of one row, in the order of the heads after model and prompt."""

    def measured(name: str) -> _Cell:
        if name not in means:
            return _Cell(math.nan, "-")
        count = means["counts"][name]["n"]
        text = f"{means[name]:.3f}{mark}" + (f" ({count} objects)" if count < means["n"] else "")
        return _Cell(means[name], text, interval_text(means["ci95"][name], ".3f"))

    estimate = means.get("iou_estimate")
    off = _Cell(math.nan, "-")
    if estimate:
        error = estimate["absolute_error"]
        off = _Cell(error, f"{error:.3f}{mark}", interval_text(estimate["ci95"]["absolute_error"], ".3f"))
    counts = [_Cell(means[name], str(means[name])) for name in ("n", "patients")]
    return [_dice_cell(means, mark), measured("dice"), measured("iou"), measured("surface_dice"), off, *counts]
