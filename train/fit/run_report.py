"""The report of a run: best and last weights beside the start and the baselines, on the validation split."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from schemas.manifest import SPLITS
from schemas.store.store import Store
from train.choices import MEASURE_NAMES
from train.config import FitConfig, setting_keys
from train.fit.state import Run
from train.fit.validate import OnTile
from train.model.loading import load_mask_predictor
from train.model.names import without_dots
from train.model.predictor import MaskPredictor
from train.model.run_checkpoints import best_checkpoint, last_checkpoint
from train.output.report import Fact, write_report
from train.score.answers import tiles_with_objects
from train.score.comparisons import differences_from, own_start
from train.score.evaluate import Evaluation, evaluate
from train.score.initial_weights import load_initial_weights
from train.score.protocol import ScoringProtocol

BEST, LAST = "best", "last"


def start_is_best(best_by: str, start_score: float | None) -> str:
    """Say that no epoch of a run was better than its start; `summary.json` has both arguments."""
    return (
        f"No epoch beat the start (validation {MEASURE_NAMES[best_by]} {start_score:.3f}): "
        "best.pt holds the weights that the run began with."
    )


def write_run_report(
    run: Run, store: Store, device: torch.device, out: Path, on_tile: OnTile | None = None, command: str = ""
) -> dict[str, Any] | None:
    """Score the best and the last weights of a run beside its start and the baselines, and write `report.html`.

    Args:
        run: The run, after its last step.
        store: The store that it was trained on.
        device: Device of the models.
        out: Folder of the run.
        on_tile: Function called after each tile that is scored.
        command: The command line; empty leaves it out.

    Returns:
        For each prompt kind, the mean difference in Dice of the best weights minus the start, with its interval; None
        without a validation split, or if the weights of the start are not there any more.
    """
    evaluation = protocol = predictors = None
    if len(tiles_with_objects(store, "val", may_be_empty=True)):
        protocol = ScoringProtocol("val", run.config.prompt_kinds, run.config.negatives)
        predictors = _predictors(run, device, out)
        told = None if on_tile is None else partial(on_tile, "report")
        evaluation = evaluate(store, predictors, protocol, on_tile=told)
    lead = start_is_best(run.config.best_by, run.start_score) if run.best_is_start else ""
    if predictors and LAST not in predictors:
        lead = "The last epoch was the best one, so best is also the last step."
    facts = (*_data(store), *_settings(run.config))
    title = f"Training: {without_dots(out).name}"
    write_report(out / "report.html", title, store, evaluation, predictors, protocol, out, lead, facts, command)
    return _against_start(evaluation) if evaluation else None


def _predictors(run: Run, device: torch.device, out: Path) -> dict[str, MaskPredictor]:
    """Load the models of the report; the last weights are left out if they are the best ones."""
    best, last = best_checkpoint(out), last_checkpoint(out)
    found: dict[str, MaskPredictor] = {}
    if best.is_file():
        found[BEST] = load_mask_predictor(best, device)
    if not found or run.epochs_since_best or run.best_weights == "raw":
        found[LAST] = MaskPredictor(run.averaged_model, device, seen=run.seen)
    return found | (load_initial_weights([last], device).predictors if last.is_file() else {})


def _against_start(evaluation: Evaluation) -> dict[str, Any] | None:
    start = own_start(BEST, list(evaluation.result["models"]))
    return (differences_from(BEST, start, evaluation.result["paired"]) or None) if start else None


def _data(store: Store) -> list[Fact]:
    """Describe the data: the store, and the patients and objects of each split."""
    splits, patients = store.column("tiles/split"), store.column("tiles/patient")
    of_objects = splits[store.column("objects/tile_index")]
    rows = [Fact("Data", "store", store.path)]
    for split in SPLITS:
        tiles = splits == split
        if tiles.any():
            people = len(set(patients[tiles].tolist()))
            counts = f"{people} patient{'s' * (people != 1)}, {int(tiles.sum())} tiles"
            rows.append(Fact("Data", split, f"{counts}, {int((of_objects == split).sum())} objects"))
    return rows


def _settings(config: FitConfig) -> list[Fact]:
    """List the settings that differ from the defaults."""
    default = FitConfig()
    rows: list[Fact] = []
    for key in setting_keys():
        own, usual = _value(config, key), _value(default, key)
        if own != usual:
            rows.append(Fact("Settings that differ from the defaults", key, f"{own} (default {usual})"))
    return rows


def _value(config: FitConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
