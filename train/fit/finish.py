"""Write the files that describe a run: `config.json` at its start, `summary.json` and `report.html` at its end."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from schemas.command.stage_timer import timed
from schemas.errors import ConfigError
from schemas.store.store import Store
from train.fit.state import Run
from train.fit.validate import OnTile
from train.runtime.device import device_name, peak_memory_bytes
from train.runtime.run_log import METRICS_FILE, StepRecord, read_steps


def finish_run(
    run: Run,
    store: Store,
    out: Path,
    device: torch.device,
    stopped_by: str,
    on_tile: OnTile | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Write `summary.json` and, unless a signal stopped the run, `report.html`.

    Args:
        run: The run.
        store: The store that it was trained on.
        out: Folder of the run.
        device: Device of the models.
        stopped_by: Name of the signal that stopped the run; empty if there was none.
        on_tile: Function called after each tile that is scored for the report.
        command: The command line, for the report.

    Returns:
        The content of `summary.json`.
    """
    steps = read_steps(out)
    summary = _summary(run, steps, device, stopped_by) | {"drawn": _drawn(store, steps)}
    # Written before the report, too, which takes long and may fail.
    write_json(out / "summary.json", summary)
    if run.config.report and not stopped_by:
        # Imported only here: the first step of a run must not wait for matplotlib, which only the report needs.
        from train.fit.run_report import write_run_report

        with timed("report"):
            # The report makes more comparisons, so its intervals are wider; both files say the same.
            of_report = write_run_report(run, store, device, out, on_tile, command)
        summary["against_start"] = of_report or run.against_start
        write_json(out / "summary.json", summary)
    return summary


def check_replaces_only_own(out: Path) -> None:
    """Refuse a folder whose files a run would replace, unless an earlier run wrote them.

    Raises:
        ConfigError: A file of something else would be replaced.
    """
    try:
        is_own = "store_fingerprint" in json.loads((out / "config.json").read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        is_own = False
    for name in () if is_own else ("config.json", METRICS_FILE, "summary.json", "report.html"):
        if (out / name).exists():
            raise ConfigError(out / name, "is in the way, and no earlier run wrote it", "choose another --out")


def describe_run(store: Store, run: Run) -> dict[str, Any]:
    """Return the content of `config.json`: all settings, the initial weights, the store, and versions of packages."""
    return {
        **run.config.model_dump(mode="json"),
        "init_sha256": run.init_sha256,
        "store": store.path,
        "store_fingerprint": store.manifest.config_fingerprint,
        "versions": {name: version(name) for name in ("bcss-sam2", "torch", "sam2", "zarr", "numpy")},
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write one JSON file of a run."""
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _drawn(store: Store, steps: list[StepRecord]) -> dict[str, dict[str, float]]:
    """Return the number of objects of each class that the run was trained on, and their share, by class name."""
    counts = {
        info.name: sum(record.by_class.get(str(info.code), 0) for record in steps) for info in store.manifest.classes
    }
    total = max(sum(counts.values()), 1)
    return {name: {"objects": count, "share": count / total} for name, count in counts.items()}


def _summary(run: Run, steps: list[StepRecord], device: torch.device, stopped_by: str) -> dict[str, Any]:
    """Return the content of `summary.json`. Steps and seconds cover the whole run; peak memory only this process."""
    # The first step includes start-up, so the rates leave it out.
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
        "device": device_name(device),
        "objects_dropped": sum(record.dropped for record in steps),
        "maps_skipped": sum(record.skipped for record in steps),
        "seconds": run.elapsed_s,
        "stopped_by": stopped_by or None,
        "val": run.val,
        "start_val": run.start_score,
        "best_val": run.best_score,
        "best_is_start": run.best_is_start,
        "best_weights": run.best_weights,
        "against_start": run.against_start,
        "best_by": run.config.best_by,
        "prompt": run.config.prompt,
    }
