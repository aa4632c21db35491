"""Write the files of an evaluation: `metrics.json`, `objects.csv` and `overlays.png`."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from PIL import Image

from schemas.errors import ConfigError
from schemas.overlay import side_by_side
from train.output.captions import with_caption
from train.output.model_folders import ModelFolders
from train.score.evaluate import Evaluation
from train.score.score_table import ScoreTable
from train.score.tables import Tables
from train.statistics.click_counts import IOU_GOALS, clicks_needed

_NOT_WRITTEN = ("clicks_dice", "clicks_iou", "surface_curve", "whole_iou")
COLUMNS = tuple(field.name for field in fields(ScoreTable) if field.name not in _NOT_WRITTEN)
"""Columns of `objects.csv` after the model and the prompt kind."""


EVALUATION_FILES = ("metrics.json", "objects.csv", "overlays.png", "report.html")
"""Files that every evaluation writes, except with `--propagate`."""


def check_no_evaluation(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds an earlier evaluation, or other files that an evaluation would replace.

    Raises:
        ConfigError: The folder holds such a file, and `overwrite` is false.
    """
    if overwrite:
        return
    for numbers in (out / "metrics.json", out / "propagation.json"):
        if numbers.exists():
            raise ConfigError(numbers, "belongs to an earlier evaluation", "give --overwrite, or choose another --out")
    for path in (out / name for name in EVALUATION_FILES):
        if path.exists():
            what = "is in the way, and no finished evaluation wrote it"
            raise ConfigError(path, what, "choose another --out, or give --overwrite to replace it")


def remove_optional(out: Path) -> None:
    """Remove the files of an earlier evaluation that the next one may not write: masks, scores of ROIs, propagation.

    Nothing else in the folder is touched.
    """
    for name in ("propagation.json", "propagation.csv"):
        (out / name).unlink(missing_ok=True)
    earlier = _earlier(out)
    if earlier is None:
        return
    settings = earlier["settings"]
    if settings["save_masks"] or settings["stitch"]:
        for name in ("rois.csv", "classes.json", "masks/truth.json"):
            (out / name).unlink(missing_ok=True)
    for name in [*["masks"] * settings["save_masks"], *["stitched"] * settings["stitch"]]:
        folder_of = ModelFolders()
        for folder in filter(Path.is_dir, (out / name / folder_of(model) for model in earlier["models"])):
            shutil.rmtree(folder)
        if (out / name).is_dir() and not any((out / name).iterdir()):
            (out / name).rmdir()


def remove_evaluation_files(out: Path) -> None:
    """Remove the files of an earlier evaluation that `--propagate` does not write."""
    if _earlier(out) is not None:
        for name in EVALUATION_FILES:
            (out / name).unlink(missing_ok=True)


def _earlier(out: Path) -> dict[str, Any] | None:
    """Return the numbers of the evaluation in a folder; None if it holds none, or only a part of the file."""
    try:
        earlier = json.loads((out / "metrics.json").read_bytes())
        is_whole = {"save_masks", "stitch"} <= earlier["settings"].keys() and isinstance(earlier["models"], dict)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return earlier if is_whole else None


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write `metrics.json`, `objects.csv` with the scores of every object, and `overlays.png` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    panels = map(with_caption, evaluation.panels, evaluation.captions)
    Image.fromarray(side_by_side(list(panels), 4)).save(out / "overlays.png")
    (out / "metrics.json").write_text(json.dumps(evaluation.result, indent=1) + "\n", encoding="utf-8")
    _write_objects(out / "objects.csv", evaluation.tables)


def _write_objects(path: Path, tables: Tables) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "prompt", *COLUMNS, *(f"clicks_to_iou_{goal}" for goal in IOU_GOALS)])
        for model, by_kind in tables.items():
            for kind, table in by_kind.items():
                # -1 stands for an object that does not reach the goal within the simulated clicks.
                clicks = [clicks_needed(table.clicks_iou, goal).tolist() for goal in IOU_GOALS]
                for row in zip(*(getattr(table, name).tolist() for name in COLUMNS), *clicks, strict=True):
                    writer.writerow([model, kind, *row])
