"""Validate the start as epoch 0; end an epoch: validate the weights, keep the best ones, and save the run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.command.stage_timer import timed
from schemas.store.store import Store
from train.choices import MEASURE_NAMES
from train.fit.state import Run, save_last
from train.fit.validate import validate
from train.runtime.machine import Machine
from train.runtime.random_state import rng_states, set_rng_states
from train.runtime.run_log import RunLog

logger = logging.getLogger(__name__)


def end_epoch(
    run: Run, store: Store, val_tiles: NDArray[np.int64], machine: Machine, log: RunLog, checkpoint: Path
) -> None:
    """Validate the weights, log the scores, and save the run.

    Args:
        run: The run, whose scores are updated.
        store: The store with tiles and prompts.
        val_tiles: int64 (V,), indices of the validation tiles. If it is empty, `best.pt` is not written.
        machine: Device and processes. All processes validate; the main one writes files.
        log: Log that receives the scores.
        checkpoint: Path of `checkpoint.pt`; `best.pt` is written beside it.

    Raises:
        CheckpointError: A checkpoint cannot be written.
    """
    _score_weights(run, store, val_tiles, machine, log, checkpoint)
    if machine.world.is_main:
        save_last(run, checkpoint)


def validate_start(
    run: Run, store: Store, val_tiles: NDArray[np.int64], machine: Machine, log: RunLog, checkpoint: Path
) -> None:
    """Validate the weights before the first step, and make them `best.pt`, which only better weights replace.

    The arguments and errors are those of `end_epoch`. The random generators are left as they were.
    """
    if not len(val_tiles):
        run.scored_steps = run.steps
        return
    states = rng_states()
    _score_weights(run, store, val_tiles, machine, log, checkpoint)
    set_rng_states(states)
    run.start_score = run.best_score


def _score_weights(
    run: Run, store: Store, val_tiles: NDArray[np.int64], machine: Machine, log: RunLog, checkpoint: Path
) -> None:
    score = None
    if len(val_tiles):
        with timed("validate"):
            run.val, score, panels = validate(
                run.scored_model, store, val_tiles, run.config, machine.world, machine.device
            )
        log.panels(run.steps, panels)
    run.scored_steps = run.steps
    log.epoch(run.steps, -(-run.steps // run.origin.steps_per_epoch), run.val, score)
    if score is None:
        return
    run.epochs_since_best += 1
    is_best = run.best_score is None or score > run.best_score
    if is_best:
        run.best_score, run.epochs_since_best = score, 0
    if machine.world.is_main:
        logger.info("%s", _epoch_line(run, score, is_best=is_best))
        if is_best:
            run.best_state().save(checkpoint.with_name("best.pt"))


def _epoch_line(run: Run, score: float, *, is_best: bool) -> str:
    """Describe a validation in one line."""
    measure = run.config.best_by
    scores = [f"{kind} {means['overall'][measure]:.3f}" for kind, means in (run.val or {}).items()]
    validated = f"validation {MEASURE_NAMES[measure]} {', '.join(scores)}"
    if not run.steps:
        return f"start: {validated}"
    parts = [f"epoch {run.epochs_done}: loss {run.loss:.3f}", validated]
    if run.start_score is not None:
        parts.append(f"{score - run.start_score:+.3f} against the start")
    return ", ".join([*parts, f"{run.elapsed_s:.0f} s", *(["best so far"] if is_best else [])])
