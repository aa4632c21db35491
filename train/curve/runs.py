"""Train the same run on more and more patients, and score all models on one split.

The runs have the same settings, steps and epochs; only their training patients differ. A run on few patients uses each
of their tiles more often. The patients of a smaller run are among those of a larger one.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.errors import BcssError, ConfigError
from schemas.store.store import Store
from train.backbone.nano_start import init_file
from train.choices import SplitChoice
from train.config import FitConfig, read_config
from train.curve.plot import write_plot
from train.data.patients import patients_in_order, tiles_of_patients
from train.data.windows import find_windows
from train.fit.finish import write_json
from train.fit.trainer import OnStep, fit
from train.fit.validate import OnTile
from train.model.checkpoint import load_checkpoint
from train.model.loading import load_mask_predictor
from train.model.names import BASELINE
from train.model.predictor import MaskPredictor
from train.model.run_checkpoints import checkpoint_to_use, last_checkpoint
from train.model.seen_patients import seen_error, seen_patients
from train.runtime.device import pick_device
from train.runtime.stop import stop_on_signals
from train.score.answers import default_split, tiles_with_objects
from train.score.comparisons import STARTS
from train.score.evaluate import evaluate
from train.score.initial_weights import load_initial_weights
from train.score.protocol import ScoringProtocol

logger = logging.getLogger(__name__)

CURVE_FILE, PLOT_FILE = "curve.json", "curve.png"


@dataclass(frozen=True)
class CurveRun:
    """One of the runs.

    Attributes:
        config: Settings of the run.
        folder: Folder of the run.
        names: The training patients.
        tiles: Number of training tiles.
        objects: Number of training objects.
    """

    config: FitConfig
    folder: Path
    names: list[str]
    tiles: int
    objects: int

    @property
    def model(self) -> str:
        """Name of the run's model among the scores."""
        return f"{len(self.names)} patients"

    @property
    def weights(self) -> Path:
        """The checkpoint that is scored."""
        return checkpoint_to_use(self.folder)


def fit_curve(
    store: Store,
    config: FitConfig,
    counts: Sequence[int],
    out: Path,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_tile: OnTile | None = None,
    command: str = "",
) -> dict[str, Any] | None:
    """Train on the given numbers of patients and on all, score the models, and write `curve.json` and `curve.png`.

    Args:
        store: The store with tiles and prompts.
        config: Settings of all runs.
        counts: Numbers of training patients; all patients are added.
        out: Folder of the results; each run has a folder in it.
        resume: Whether finished runs are kept, and an interrupted one is continued.
        on_step: Function called after each step of each run.
        on_tile: Function called after each tile that is scored.
        command: The command line, for the reports of the runs; empty leaves it out.

    Returns:
        The content of `curve.json`; None if a signal stopped a run.

    Raises:
        ConfigError: The store has fewer patients, no split to score, or test patients that the start has seen; or
            torchrun started several processes.
        BcssError: What `fit` and `evaluate` raise.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--curve", "runs in one process", "start it without torchrun")
    split = default_split(store)
    if split == "train":
        raise ConfigError("--curve", f"needs a test or val split, which {store.path} lacks", "build it with one")
    runs = curve_runs(store, config, counts, out)
    _check_start(store, config, split)
    with stop_on_signals() as stop:
        for number, run in enumerate(runs, start=1):
            held = f"{len(run.names)} patients, {run.tiles} tiles, {run.objects} objects"
            said = f"curve, run {number} of {len(runs)}: {held}"
            if resume and is_finished(run, store):
                logger.info("%s: finished before", said)
            else:
                logger.info("%s", said)
                fit(store, run.config, run.folder, resume=resume, on_step=on_step, on_tile=on_tile, command=command)
            # A signal may also arrive while the run writes its report. Then the run is complete.
            if stop:
                return None
    content = _scored(store, runs, split, pick_device(config.device), on_tile)
    write_json(out / CURVE_FILE, content)
    write_plot(out / PLOT_FILE, content)
    return content


def _check_start(store: Store, config: FitConfig, split: SplitChoice) -> None:
    """Check before the first run that the start may be scored on the split, as `evaluate` does after the last one.

    Raises:
        ConfigError: The start has seen patients of the test split.
    """
    file = None if config.init is None else init_file(config.init)
    # If the file is not there, `fit` says so, or a resumed run does not need it.
    if file is None or split != "test" or not file.is_file():
        return
    seen = seen_patients(load_checkpoint(file), file)
    tiles = tiles_with_objects(store, split)
    among = seen.among(set(store.column("tiles/patient")[tiles].tolist())) if seen else None
    if among:
        remedy = "choose another --init, or build the store with a split in which these patients are not in test"
        raise seen_error(f"--init {config.init}", among, remedy)


def curve_runs(store: Store, config: FitConfig, counts: Sequence[int], out: Path) -> list[CurveRun]:
    """Return the runs, by rising number of patients.

    Raises:
        ConfigError: A number of patients is not positive, or the store has fewer.
    """
    tiles = tiles_with_objects(store, "train")
    if config.frames > 1:
        tiles = find_windows(store, tiles, config.frames, config.frame_stride).starts
    names = patients_in_order(store, tiles, config.seed)
    if not counts or min(counts) < 1 or max(counts) > len(names):
        shown = ",".join(map(str, counts))
        remedy = f"give numbers from 1 to {len(names)}, the training patients of {store.path}"
        raise ConfigError(f"--curve {shown}", "has a number of patients that the store does not have", remedy)
    objects = np.diff(store.column("tiles/object_offsets"))
    runs: list[CurveRun] = []
    for count in sorted({*counts, len(names)}):
        own = tiles_of_patients(store, tiles, count, config.seed)
        settings = config.model_copy(update={"patients": count})
        folder = out / f"patients_{count}"
        runs.append(CurveRun(settings, folder, names[:count], len(own), int(objects[own].sum())))
    return runs


def is_finished(run: CurveRun, store: Store) -> bool:
    """Return whether a run is complete and was trained on this store with these settings."""
    try:
        summary = _summary(run)
        is_same = read_config(run.folder / "config.json", {}) == run.config
        checkpoint = load_checkpoint(last_checkpoint(run.folder))
    except (OSError, ValueError, BcssError):
        # Nothing was written yet, or a kill left a part of a file.
        return False
    # A build may have replaced the store by one of other ROIs with the same settings.
    is_of_store = checkpoint["origin"]["data_sha256"] == store.manifest.complete.checksums_sha256
    if summary["stopped_by"] is not None:
        return False
    steps = summary["steps"]
    # A summary may be that of a shorter run, which was then continued and killed.
    is_last = checkpoint["steps"] == steps
    is_whole = run.config.patience > 0 or steps == run.config.total_steps(round(steps / summary["epochs"]))
    # The report is written last.
    has_report = not run.config.report or (run.folder / "report.html").is_file()
    return is_same and is_of_store and is_last and is_whole and has_report and run.weights.is_file()


def _summary(run: CurveRun) -> dict[str, Any]:
    return json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))


def _scored(
    store: Store, runs: Sequence[CurveRun], split: SplitChoice, device: torch.device, on_tile: OnTile | None
) -> dict[str, Any]:
    """Score all models, their start and the baselines on the same objects; return the content of `curve.json`."""
    predictors: dict[str, MaskPredictor] = {run.model: load_mask_predictor(run.weights, device) for run in runs}
    starts = load_initial_weights([runs[0].weights], device).predictors
    config = runs[0].config
    protocol = ScoringProtocol(split, config.prompt_kinds, config.negatives)
    told = None if on_tile is None else partial(on_tile, "score")
    result = evaluate(store, predictors | starts, protocol, on_tile=told).result
    scores = {model: {kind: _dice(means) for kind, means in kinds.items()} for model, kinds in result["models"].items()}
    return {
        "split": split,
        "store": store.path,
        "store_fingerprint": store.manifest.config_fingerprint,
        "measure": "Dice, class mean",
        "points": [
            {
                "patients": len(run.names),
                "names": run.names,
                "tiles": run.tiles,
                "objects": run.objects,
                "run": run.folder.name,
                "weights": run.weights.name,
                "best_is_start": _summary(run)["best_is_start"],
                "scores": scores[run.model],
            }
            for run in runs
        ],
        "start": {model: kinds for model, kinds in scores.items() if model.startswith(STARTS)},
        "baselines": {f"{BASELINE}{name}": scores[f"{BASELINE}{name}"] for name in protocol.baselines},
        "oracles": result["oracles"],
        "seen_patients": result["seen_patients"],
    }


def _dice(means: dict[str, Any]) -> dict[str, Any]:
    dice = means["overall"]["class_mean"]["dice"]
    return {"dice": dice["value"], "ci95": dice.get("ci95"), "patients": dice.get("patients")}
