"""What is said of a run beside its log: `config.json` at its start, `summary.json` and `report.html` at its end."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from schemas.command.stage_timer import timed
from schemas.store.store import Store
from train.choices import MEASURE_NAMES
from train.fit.state import Run
from train.model.predictor import MaskPredictor
from train.output.report import write_report
from train.runtime.device import peak_memory_bytes
from train.runtime.run_log import StepRecord, read_steps
from train.score.answers import tiles_with_objects
from train.score.evaluate import evaluate
from train.score.protocol import ScoringProtocol


def finish_run(run: Run, store: Store, out: Path, device: torch.device, stopped_by: str) -> dict[str, Any]:
    """Write `summary.json` and, unless a signal stopped the run, `report.html`.

    Args:
        run: The run.
        store: What it was trained on.
        out: Its folder.
        device: Where the model is.
        stopped_by: Name of the signal, empty where none came.

    Returns:
        What `summary.json` holds.
    """
    summary = _summary(run, read_steps(out), device, stopped_by)
    write_json(out / "summary.json", summary)
    if run.config.report and not stopped_by:
        with timed("report"):
            _report(run, store, device, out)
    return summary


def describe_run(store: Store, run: Run) -> dict[str, Any]:
    """What `config.json` holds: every setting, the weights and the store that it began with, and versions."""
    return {
        **run.config.model_dump(mode="json"),
        "init_sha256": run.init_sha256,
        "store": store.path,
        "store_fingerprint": store.manifest.config_fingerprint,
        "versions": {name: version(name) for name in ("bcss-sam2", "torch", "sam2", "zarr", "numpy")},
    }


def start_is_best(best_by: str, start_score: float | None) -> str:
    """Say that a run has not beaten its start; the arguments stand in `summary.json`."""
    return (
        f"No epoch beat the start (validation {MEASURE_NAMES[best_by]} {start_score:.3f}): "
        "best.pt holds the weights that the run began with."
    )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write one of a run's JSON files."""
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _report(run: Run, store: Store, device: torch.device, out: Path) -> None:
    """Write `report.html`: the last weights, or their average, beside the baselines on the validation split."""
    evaluation = protocol = predictors = None
    if len(tiles_with_objects(store, "val", may_be_empty=True)):
        protocol = ScoringProtocol("val", run.config.prompt_kinds, run.config.negatives)
        name = "last" if run.ema is None else "average of the last weights"
        predictors = {name: MaskPredictor(run.scored_model, device)}
        evaluation = evaluate(store, predictors, protocol)
    lead = start_is_best(run.config.best_by, run.start_score) if run.best_is_start else ""
    write_report(out / "report.html", f"Run {out.name}", store, evaluation, predictors, protocol, out, lead)


def _summary(run: Run, steps: list[StepRecord], device: torch.device, stopped_by: str) -> dict[str, Any]:
    """What `summary.json` holds; steps and seconds in them are of the whole run, peak memory of this process."""
    # The first step pays for start-up, so it says nothing of the rate.
    steady = steps[1:] or steps
    seconds = sum(record.step_s for record in steady)
    return {
        "steps": run.steps,
        "epochs": run.steps / run.origin.steps_per_epoch,
        "loss_first": steps[0].loss if steps else None,
        "loss_last": run.loss,
        "images_per_s": sum(record.images for record in steady) / seconds if seconds else None,
        "data_wait_fraction": sum(record.data_wait_s for record in steady) / seconds if seconds else None,
        "peak_memory_bytes": peak_memory_bytes(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "objects_dropped": sum(record.dropped for record in steps),
        "maps_skipped": sum(record.skipped for record in steps),
        "seconds": run.elapsed_s,
        "stopped_by": stopped_by or None,
        "val": run.val,
        "start_val": run.start_score,
        "best_val": run.best_score,
        "best_is_start": run.best_is_start,
        "best_by": run.config.best_by,
        "prompt": run.config.prompt,
    }
