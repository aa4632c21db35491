"""`report.html`: one file that a browser shows without a network, with scores, plots, objects and training curves."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.overlay import draw_overlay
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.model.predictor import MaskPredictor
from train.output.plots import bars_by_class, dice_by_clicks, dice_by_size, training_curves
from train.runtime.run_log import METRICS_FILE
from train.score.answers import score_tiles
from train.score.evaluate import Evaluation
from train.score.protocol import ScoringProtocol
from train.score.score_table import ScoreTable
from train.score.tile_answer import ScoredAnswer

OBJECTS_SHOWN = 4
PICTURE_PX = 320
OVERALL = "all classes"
_HEADS = ("model", "prompt", "Dice", "IoU", "surface Dice", "IoU estimate off by", "objects", "patients")


@dataclass(frozen=True)
class _Cell:
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
) -> None:
    """Write the report.

    Args:
        path: The file.
        title: Its heading.
        store: Where the objects that are shown come from.
        evaluation: Scores; without them the report has the curves alone.
        predictors: The models, asked again for the objects that are shown; the first one is drawn.
        protocol: That of the evaluation.
        run: Folder of the training run whose curves are shown, where there is one.
    """
    figures: list[dict[str, str]] = []
    context: dict[str, Any] = {"title": title, "facts": repr(store), "figures": figures}
    if evaluation is not None:
        context |= _scores(evaluation)
        figures.append({"title": "Dice by class", "svg": bars_by_class(evaluation.result["models"])})
        figures.append({"title": "Dice against size of the object", "svg": dice_by_size(evaluation.tables)})
        clicks = dice_by_clicks(evaluation.tables)
        if clicks:
            figures.append({"title": "Dice after simulated clicks", "svg": clicks})
        if predictors and protocol:
            context["drawn"] = next(iter(predictors))
            context["objects"] = _objects(store, evaluation, predictors, protocol)
    if run is not None:
        figures.append({"title": "Training", "svg": training_curves(run)})
    loader = jinja2.PackageLoader("train.output", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(environment.get_template("report.html.j2").render(context), encoding="utf-8")


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote a checkpoint, where its log is still there."""
    run = checkpoint.resolve().parent.parent
    return run if (run / METRICS_FILE).exists() else None


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    classes: dict[str, None] = {OVERALL: None}
    for model, kinds in evaluation.result["models"].items():
        for kind, scores in kinds.items():
            for name, means in {OVERALL: scores["overall"], **scores["classes"]}.items():
                classes[name] = None
                rows.append(
                    {
                        "model": model,
                        "prompt": kind,
                        "class_name": name,
                        "is_baseline": model.startswith("baseline:"),
                        "cells": _cells(means),
                    }
                )
    pairs = [
        {
            **pair,
            "dice": f"{pair['dice']:+.3f}",
            "interval": _interval(pair["ci95"], "+.3f"),
            "better_on": f"{pair['better_on']:.0%}",
        }
        for pair in evaluation.result["paired"]
    ]
    asked = evaluation.result["protocol"]
    facts = f"{asked['store']}, split {asked['split']}, {asked['tiles']} tiles of {asked['resolution_px']} px"
    facts += f"; surface tolerance {asked['surface_tolerance_um']} µm" if asked["surface_tolerance_um"] else ""
    facts += "; mean of eight flips and turns" if asked["tta"] else ""
    weights = [f"{name}: {file['path']}, SHA-256 {file['sha256']}" for name, file in asked["weights"].items()]
    return {"facts": facts, "weights": weights, "heads": _HEADS, "rows": rows, "classes": list(classes), "pairs": pairs}


def _cells(means: dict[str, Any]) -> list[_Cell]:
    def measured(name: str) -> _Cell:
        if name not in means:
            return _Cell(math.nan, "-")
        return _Cell(means[name], f"{means[name]:.3f}", _interval(means["ci95"][name], ".3f"))

    estimate = means.get("iou_estimate")
    off = _Cell(math.nan, "-")
    if estimate:
        error = estimate["absolute_error"]
        off = _Cell(error, f"{error:.3f}", _interval(estimate["ci95"]["absolute_error"], ".3f"))
    counts = [_Cell(means[name], str(means[name])) for name in ("n", "patients")]
    return [measured("dice"), measured("iou"), measured("surface_dice"), off, *counts]


def _interval(ends: tuple[float, float] | None, form: str) -> str:
    return f"{ends[0]:{form}} to {ends[1]:{form}}" if ends else ""


def _objects(
    store: Store, evaluation: Evaluation, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol
) -> list[dict[str, Any]]:
    """The best, the middle and the worst objects of the first model under the first prompt kind."""
    model, kind = next(iter(predictors)), protocol.kinds[0]
    table = evaluation.tables[model][kind]
    order = np.argsort(table.dice, kind="stable")
    middle = max(len(order) // 2 - OBJECTS_SHOWN // 2, 0)
    chosen = {
        "Best objects": order[::-1][:OBJECTS_SHOWN],
        "Middle objects": order[middle : middle + OBJECTS_SHOWN],
        "Worst objects": order[:OBJECTS_SHOWN],
    }
    tiles = sorted({int(tile) for rows in chosen.values() for tile in table.tile_index[rows]})
    asked = replace(protocol, kinds=(kind,), baselines=(), corrections=0, tolerance_um=None)
    scored = score_tiles(store, tiles, {model: predictors[model]}, asked)
    answers = {entry.record.index: entry for entry in scored}
    return [
        {"title": title, "pictures": [_picture(store, table, int(row), kind, answers) for row in rows]}
        for title, rows in chosen.items()
    ]


def _picture(
    store: Store, table: ScoreTable, row: int, kind: PromptKind, answers: dict[int, ScoredAnswer]
) -> dict[str, str]:
    found = answers[int(table.tile_index[row])]
    answer, record = found.answer, found.record
    place = int(np.flatnonzero(record.object_ids == table.object_id[row])[0])
    one = slice(place, place + 1)
    alone = replace(
        record,
        segments=record.segments[one],
        object_ids=record.object_ids[one],
        class_ids=record.class_ids[one],
        boxes_xyxy=record.boxes_xyxy[one],
    )
    colors = {info.code: info.color for info in store.manifest.classes}
    names = {info.code: info.name for info in store.manifest.classes}
    drawn = draw_overlay(alone, [answer.question.prompts[place]], colors, answer.masks[one], side_px=2 * PICTURE_PX)
    class_name = names[int(table.class_id[row])]
    caption = f"Dice {table.dice[row]:.3f}, {class_name}, {int(table.area_px[row])} px, {kind}; {record.frame_id}"
    return {"jpeg": _jpeg(drawn), "caption": f"{caption} at {record.origin_xy[0]}, {record.origin_xy[1]}"}


def _jpeg(picture: NDArray[np.uint8]) -> str:
    small = np.asarray(cv2.resize(picture, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG", quality=88)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
