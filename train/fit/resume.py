"""Resume a run: find its last whole checkpoint, compare the settings, and restore the state."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from schemas.errors import CheckpointError, ConfigError
from train.config import FitConfig
from train.fit.average import without_warm_up
from train.fit.optimizer import schedule_factor
from train.fit.state import Run, previous_of
from train.model.checkpoint import Weights, load_checkpoint, load_weights
from train.model.lora import load_adapted
from train.model.promptable import PromptableSam
from train.model.seen_patients import SeenPatients, seen_patients
from train.model.train_state import TrainState
from train.runtime.random_state import set_rng_states

logger = logging.getLogger(__name__)

FREE_SETTINGS = {
    "workers",
    "save_every_steps",
    "keep_previous",
    "patience",
    "device",
    "init",
    "compile",
    "checkpoint_activations",
    "epochs",
    "max_steps",
    "report",
    "recipe",
}
"""Settings that a resumed run may change. A longer run also stretches the rest of the cosine schedule."""

SPLIT_SETTINGS = {"batch_size", "optimizer.accumulate"}
"""Settings that may change together with the number of processes, if the images per step stay the same."""

LEARNING_RATE_RISE_TO_WARN = 1.05
"""A resumed run warns if its learning rate rises by more than this factor."""


def readable_checkpoint(path: Path) -> Path | None:
    """Return the last checkpoint, or the one before it if the last is damaged; None if there is none.

    Only one process may call this, because a damaged file is renamed.

    Args:
        path: Path of `checkpoint.pt`.

    Raises:
        CheckpointError: Neither file can be read.
    """
    candidates = [candidate for candidate in (path, previous_of(path)) if candidate.exists()]
    for candidate in candidates:
        try:
            load_checkpoint(candidate)
        except CheckpointError as error:
            if candidate == candidates[-1]:
                raise
            logger.warning("%s; resuming from the checkpoint before it", error)
            # Rename it, so that the next save does not keep it as `previous.pt`.
            candidate.replace(candidate.with_suffix(".damaged"))
        else:
            return candidate
    return None


def restore_run(run: Run, path: Path) -> None:
    """Restore the state of a run from a checkpoint.

    Args:
        run: The run as `start_run` built it; it is changed.
        path: Path of the checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be resumed.
        ConfigError: The run was started with other settings.
    """
    state = TrainState.load(path)
    _check_config(run, state, path)
    try:
        _restore(run, state, path)
    except CheckpointError:
        raise
    except Exception as error:
        # Values of a wrong type make the optimizer and the generators raise errors of any type.
        raise CheckpointError(path, f"cannot be resumed ({error})", "start a new run with --init") from error
    _warn_of_longer_schedule(run, state)
    if state.threads != torch.get_num_threads():
        logger.warning(
            "%s was written with %d threads and this process has %d: sums may differ in their last bits",
            path,
            state.threads,
            torch.get_num_threads(),
        )
    logger.info("resuming from %s after step %d", path, run.steps)


def _warn_of_longer_schedule(run: Run, state: TrainState) -> None:
    """Warn if the learning rate rises because the run is longer now: the cosine ends at the run's last step."""
    before = FitConfig.model_validate({**FitConfig().model_dump(), **_known(state.config)})
    steps = [config.total_steps(run.origin.steps_per_epoch) for config in (before, run.config)]
    was, now = (schedule_factor(run.steps, total, run.config.optimizer) for total in steps)
    if now > was * LEARNING_RATE_RISE_TO_WARN:
        logger.warning(
            "the run now has %d steps instead of %d, so the learning rate rises from %.0f%% to %.0f%% of its peak, and "
            "falls again until the new end",
            *reversed(steps),
            100 * was,
            100 * now,
        )


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("epochs", "max_steps") if key in settings}


def _restore(run: Run, state: TrainState, path: Path) -> None:
    _load(run.model, state.weights, path)
    if run.ema is not None:
        if state.ema is None:
            raise CheckpointError(path, "holds no moving average", "start a new run with --init")
        _load(run.averaged_model, state.ema, path)
        run.ema.n_averaged.fill_(state.steps)
        run.ema_warms_up = state.ema_warms_up
        if not run.ema_warms_up:
            without_warm_up(run.ema, run.config.optimizer.ema_decay)
    if state.optimizer is None:
        raise CheckpointError(path, "holds no optimizer state (best.pt has none)", "give checkpoint.pt, or use --init")
    for group in state.optimizer["param_groups"]:
        # Whether the optimizer is fused depends on the device, which may have changed.
        group["fused"] = run.optimizer.defaults["fused"]
    run.optimizer.load_state_dict(state.optimizer)
    run.steps, run.elapsed_s, run.loss = state.steps, state.time_elapsed, state.loss
    run.best_by_objects = run.config.best_by in state.best_meter_values
    run.best_score = state.best_meter_values.get(run.best_score_name)
    run.best_weights = state.best_weights
    run.start_score, run.epochs_since_best = state.start_score, state.epochs_since_best
    run.start_dice, run.against_start = state.start_dice, state.against_start
    run.scored_steps, run.val = state.scored_steps, state.val
    # The run keeps the `--init` that it was started with, even if another one is given now.
    run.config = FitConfig.model_validate(run.config.model_dump() | {"init": state.config.get("init")})
    run.init_sha256 = state.init_sha256
    run.seen = seen_patients({"patients": state.patients}, path) or SeenPatients()
    set_rng_states(state.rng)


def _load(model: PromptableSam, parts: Mapping[str, Weights], path: Path) -> None:
    if "adapter" in parts:
        load_adapted(model, parts)
    else:
        load_weights(model, parts["model"], path)


def _check_config(run: Run, state: TrainState, path: Path) -> None:
    now = {**asdict(run.origin), **run.config.model_dump(mode="json")}
    then = {**state.origin, **_with_defaults(state.config, FitConfig().model_dump(mode="json"))}
    difference = _first_difference(now, then)
    if difference is not None:
        key, ours, theirs = difference
        raise ConfigError(
            path,
            f"was started with {key} = {reprlib.repr(theirs)}, not {ours}",
            "use its store, flags and number of processes, or choose another --out",
        )


def _with_defaults(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Add the default of each setting that a file lacks: versions without the setting behaved as its default does."""
    filled: dict[str, Any] = {**defaults, **settings}
    for key, default in defaults.items():
        own = settings.get(key)
        # A free-form mapping such as class weights has an empty default, and is kept as it is.
        if isinstance(default, dict) and default and isinstance(own, dict):
            filled[key] = _with_defaults(cast("dict[str, Any]", own), cast("dict[str, Any]", default))
    return filled


def _first_difference(now: dict[str, Any], then: dict[str, Any], prefix: str = "") -> tuple[str, object, object] | None:
    """Return the dotted key and both values of the first setting that differs and may not change; None if all agree.

    It descends only into groups that this run has, because a damaged file may be nested without end.
    """
    for key in sorted(now.keys() | {str(key) for key in then}):
        name, ours, theirs = f"{prefix}{key}", now.get(key), then.get(key)
        if isinstance(ours, dict) and ours and isinstance(theirs, dict):
            difference = _first_difference(cast("dict[str, Any]", ours), cast("dict[str, Any]", theirs), f"{name}.")
            if difference is not None:
                return difference
        elif name not in FREE_SETTINGS | SPLIT_SETTINGS and (isinstance(theirs, torch.Tensor) or ours != theirs):
            return name, ours, theirs
    return None
