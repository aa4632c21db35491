"""Validate a run before its first step and at the end of each epoch; keep the best weights, and save the run."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.command.stage_timer import timed
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.choices import MEASURE_NAMES
from train.fit.state import Run, WeightsKind, save_last
from train.fit.validate import OnTile, Validation, score_of, validate
from train.model.promptable import PromptableSam
from train.model.run_checkpoints import BEST_FILE
from train.runtime.machine import Machine
from train.runtime.random_state import rng_states, set_rng_states
from train.runtime.run_log import RunLog
from train.score.comparisons import against_start
from train.score.initial_weights import UNTRAINED, ZERO_SHOT
from train.score.score_table import ScoreTable

logger = logging.getLogger(__name__)


def end_epoch(
    run: Run,
    store: Store,
    val_tiles: NDArray[np.int64],
    machine: Machine,
    log: RunLog,
    checkpoint: Path,
    on_tile: OnTile | None = None,
) -> None:
    """Validate the weights, log the scores, and save the run.

    Args:
        run: The run, whose scores are updated.
        store: The store with tiles and prompts.
        val_tiles: int64 (V,), indices of the validation tiles. If it is empty, `best.pt` is not written.
        machine: Device and processes. All processes validate; the main one writes files.
        log: Log that receives the scores.
        checkpoint: Path of `checkpoint.pt`; `best.pt` is written beside it.
        on_tile: Function called after each validated tile.

    Raises:
        CheckpointError: A checkpoint cannot be written.
    """
    _score_weights(run, store, val_tiles, machine, log, checkpoint, on_tile)
    if machine.world.is_main:
        save_last(run, checkpoint)


def validate_start(
    run: Run,
    store: Store,
    val_tiles: NDArray[np.int64],
    machine: Machine,
    log: RunLog,
    checkpoint: Path,
    on_tile: OnTile | None = None,
) -> None:
    """Validate the weights before the first step, and save them as `best.pt` until better weights replace them.

    The arguments and errors are those of `end_epoch`. The random generators are left as they were.
    """
    if not len(val_tiles):
        run.scored_steps = run.steps
        return
    states = rng_states()
    _score_weights(run, store, val_tiles, machine, log, checkpoint, on_tile)
    set_rng_states(states)
    run.start_score = run.best_score


def _score_weights(
    run: Run,
    store: Store,
    val_tiles: NDArray[np.int64],
    machine: Machine,
    log: RunLog,
    checkpoint: Path,
    on_tile: OnTile | None,
) -> None:
    run.scored_steps = run.steps
    epoch = -(-run.steps // run.origin.steps_per_epoch)
    if not len(val_tiles):
        log.epoch(run.steps, epoch, None, None)
        return
    found: dict[WeightsKind, tuple[PromptableSam, Validation, float]] = {}
    states, began_s = rng_states(), time.perf_counter()
    with timed("validate"):
        for kind, model in _models(run).items():
            # A validation draws a number. All begin from the same state, so that an average changes no draw of the run.
            set_rng_states(states)
            validation = validate(model, store, val_tiles, run.config, machine.world, machine.device, on_tile)
            score = validation.score(run.config.best_by, by_objects=run.best_by_objects)
            found[kind] = model, validation, score
    scores: dict[str, float] = {kind: entry[2] for kind, entry in found.items()}
    better = max(found, key=lambda kind: scores[kind])
    model, validation, score = found[better]
    run.val = validation.scores
    log.panels(run.steps, validation.panels)
    log.epoch(run.steps, epoch, run.val, score, scores)
    run.epochs_since_best += 1
    is_best = run.best_score is None or score > run.best_score
    if is_best:
        run.best_score, run.epochs_since_best = score, 0
        run.best_weights = better if run.ema is not None else None
        _compare_with_start(run, validation.tables)
    if machine.world.is_main:
        kind = better if len(found) > 1 else None
        took_s = log.sums.seconds + time.perf_counter() - began_s
        logger.info("%s", _line(run, epoch, score, kind, log.sums.mean_loss, took_s, is_best=is_best))
        if is_best:
            run.best_state(model).save(checkpoint.with_name(BEST_FILE))


def _compare_with_start(run: Run, tables: dict[PromptKind, ScoreTable]) -> None:
    """Keep the Dice of the start; later, keep the difference of the best weights to it."""
    if not run.steps:
        run.start_dice = {kind: table.dice.tolist() for kind, table in tables.items()}
    if run.start_dice is not None:
        start = ZERO_SHOT if run.config.init else UNTRAINED
        run.against_start = against_start("best", start, tables, run.start_dice)


def _models(run: Run) -> dict[WeightsKind, PromptableSam]:
    """Return the weights to validate: those of the step, and their moving average, which at the start are the same."""
    if run.ema is None or not run.steps:
        return {"raw": run.model}
    return {"average": run.averaged_model, "raw": run.model}


def _line(
    run: Run, epoch: int, score: float, kind: WeightsKind | None, loss: float | None, took_s: float, *, is_best: bool
) -> str:
    """Describe a validation in one line.

    Args:
        run: The run, with the scores of the better weights.
        epoch: Number of epochs done.
        score: Score that chooses `best.pt`.
        kind: The weights that `score` is of; None without a moving average.
        loss: Mean loss over the steps of the epoch; None if no step of it is known.
        took_s: Seconds of the epoch's steps and of the validation.
        is_best: Whether the weights are the best so far.
    """
    # The first measure is the one that chooses `best.pt`; the change against the start is one of it.
    measures = sorted(MEASURE_NAMES, key=lambda measure: measure != run.config.best_by)
    names = "/".join(MEASURE_NAMES[measure] for measure in measures)
    scores = [
        f"{prompt} "
        + "/".join(f"{score_of(means, measure, by_objects=run.best_by_objects):.3f}" for measure in measures)
        for prompt, means in (run.val or {}).items()
    ]
    validated = f"val {names} {', '.join(scores)}"
    if not run.steps:
        return f"start: {validated}"
    parts = [f"epoch {epoch}: loss {run.loss if loss is None else loss:.3f}", validated]
    if kind is not None:
        parts[-1] += f" ({kind})"
    if run.start_score is not None:
        parts.append(f"{score - run.start_score:+.3f} vs start")
    return ", ".join([*parts, f"{took_s:.0f} s", *(["best"] if is_best else [])])
