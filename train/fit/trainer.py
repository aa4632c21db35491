"""Fine-tune SAM 2 on a store: the story of one run, from top to bottom.

A run is a function of its configuration and its store. The order of tiles is keyed by (seed, epoch) and everything
that is drawn for a sample by (seed, epoch, tile); the model draws nothing. So on one device a resumed run goes on bit
by bit, and neither workers nor processes change which data a step sees.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from schemas.command.stage_timer import timed
from schemas.errors import CheckpointError, TrainingError
from schemas.store.store import Store
from train.config import FitConfig
from train.data.collate import Batch
from train.data.loader import deaths_as_errors, loading_error, training_dataset, training_loader
from train.data.sampler import EpochSampler
from train.features.fill import check_cacheable, filled_features
from train.fit.finish import describe_run, finish_run, write_json
from train.fit.optimizer import set_learning_rates
from train.fit.start_check import check_against_predictor
from train.fit.state import Origin, Run, previous_of, readable_checkpoint, restore_run, save_last, start_run
from train.fit.step import TrainStep
from train.fit.validate import validate
from train.model.acceleration import recompute_activations
from train.model.checkpoint import save_checkpoint
from train.runtime.device import out_of_memory_as_error, pick_device
from train.runtime.distributed import World, open_world
from train.runtime.run_log import RunLog, StepRecord
from train.runtime.stop import StopRequest, stop_on_signals
from train.score.answers import tiles_with_objects

logger = logging.getLogger(__name__)

OnStep = Callable[[StepRecord, int], None]


def fit(
    store: Store, config: FitConfig, out: Path, *, resume: bool = False, on_step: OnStep | None = None
) -> dict[str, Any]:
    """Train, and write checkpoints, logs and `summary.json`.

    Args:
        store: Tiles and prompts.
        config: The run.
        out: The run's folder.
        resume: Whether to go on from its last checkpoint, if it holds one.
        on_step: Told each step and how many there will be.

    Returns:
        What `summary.json` holds.

    Raises:
        StoreError: The store has no training tile, or lacks the prompt.
        ConfigError: The configuration does not fit the store, the machine or the run that is resumed.
        CheckpointError: A checkpoint cannot be read or written, or the folder holds another run.
        TrainingError: The loss is no longer finite, or memory ran out.
    """
    device_type = pick_device(config.device).type
    with (
        open_world(device_type) as world,
        stop_on_signals() as stop,
        out_of_memory_as_error(config),
        deaths_as_errors("give --resume"),
    ):
        device = torch.device(device_type, world.local_rank) if device_type == "cuda" else torch.device("cpu")
        place = _Place(world, device, stop)
        # The loader and its processes end with `_train`, before the report is made.
        run = _train(store, config, out, place, resume=resume, on_step=on_step)
        return finish_run(run, store, out, device, stop.by) if world.is_main else {}


class _Place:
    """Where a run takes place: its processes, its device, and whether it was asked to stop."""

    def __init__(self, world: World, device: torch.device, stop: StopRequest) -> None:
        self.world = world
        self.device = device
        self.stop = stop

    def must_stop(self) -> bool:
        """Whether any process was asked to stop: all ask in the same places, so all stop after the same step."""
        asked = self.world.sum([float(bool(self.stop))])[0] > 0
        if asked:
            self.stop.by = self.stop.by or "SIGTERM"
        return asked


@dataclass(frozen=True)
class _Parts:
    """What a run is made with.

    Attributes:
        run: Its state.
        sampler: The order of its tiles.
        loader: Of its batches.
        train_step: Makes a step.
        val_tiles: Tiles to validate on; there may be none.
        total_steps: Steps at its end.
    """

    run: Run
    sampler: EpochSampler
    loader: DataLoader[Any]
    train_step: TrainStep
    val_tiles: NDArray[np.int64]
    total_steps: int


def _train(store: Store, config: FitConfig, out: Path, place: _Place, *, resume: bool, on_step: OnStep | None) -> Run:
    checkpoint = out / "checkpoints" / "checkpoint.pt"
    if not resume and (checkpoint.exists() or previous_of(checkpoint).exists()):
        raise CheckpointError(checkpoint, "is of an earlier run", "give --resume to go on, or choose another --out")
    with timed("set up"):
        parts = _set_up(store, config, place, checkpoint if resume else None)
    run, per_epoch = parts.run, parts.run.origin.steps_per_epoch
    place.world.wait()
    if place.world.is_main:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "config.json", describe_run(store, run))
    with RunLog(out if place.world.is_main else None, kept_steps=run.steps) as log:
        while not place.must_stop():
            at_end = run.steps > 0 and (run.steps % per_epoch == 0 or run.steps == parts.total_steps)
            if at_end and run.scored_steps != run.steps:
                _end_epoch(run, store, parts.val_tiles, place, log, checkpoint)
                continue
            if run.steps >= parts.total_steps or _is_patience_out(run):
                break
            for record in _train_epoch(parts, place, out):
                log.step(record)
                if on_step:
                    on_step(record, parts.total_steps)
                # At an epoch's end the weights are validated first, and then saved.
                due = config.save_every_steps and run.steps % config.save_every_steps == 0
                if due and place.world.is_main and run.steps % per_epoch and run.steps < parts.total_steps:
                    save_last(run, checkpoint)
    if place.world.is_main and place.stop:
        save_last(run, checkpoint)
    return run


def _set_up(store: Store, config: FitConfig, place: _Place, checkpoint: Path | None) -> _Parts:
    """Make what a run needs, and take up its state from a checkpoint where one is given and there."""
    world, device = place.world, place.device
    train_tiles = tiles_with_objects(store, "train")
    val_tiles = tiles_with_objects(store, "val", may_be_empty=True)
    if not len(val_tiles):
        logger.warning("%s has no validation tile: nothing chooses a best.pt, and none is written", store.path)
    accumulate = config.optimizer.accumulate
    sampler = EpochSampler(train_tiles, config.batch_size, config.seed, world.rank, world.size)
    dataset = training_dataset(store, config)
    per_epoch = -(-len(sampler) // accumulate)
    global_batch = config.batch_size * accumulate * world.size
    resumed = world.gather(readable_checkpoint(checkpoint) if checkpoint and world.is_main else None)[0]
    # What the run started from is in its checkpoint; the file may be gone.
    begun_with = config if resumed is None else config.model_copy(update={"init": None})
    run = start_run(begun_with, Origin(store.manifest.complete.checksums_sha256, global_batch, per_epoch), device)
    if config.cache_features:
        check_cacheable(run.model, store, config)
    if resumed is not None:
        restore_run(run, resumed)
    else:
        if checkpoint is not None:
            logger.warning("%s is not there: nothing is resumed, and the run begins", checkpoint)
        _check_start(run, store, int(train_tiles[0]), device)
    if config.cache_features:
        dataset.features = filled_features(run.model, store, config, train_tiles.tolist(), world, device, place.stop)
    if config.checkpoint_activations:
        recompute_activations(run.model.sam)
    if config.compile:
        run.model.compile_parts()
    train_step = TrainStep(run.model, run.optimizer, config, world, device)
    total_steps = min(config.epochs * per_epoch, config.max_steps or config.epochs * per_epoch)
    return _Parts(run, sampler, training_loader(dataset, config, sampler, device), train_step, val_tiles, total_steps)


def _check_start(run: Run, store: Store, tile: int, device: torch.device) -> None:
    if run.config.init:
        logger.info("starts from %s", run.config.init)
        check_against_predictor(run.model, store, tile, device)
    else:
        logger.warning("starts from random weights, which need far more data than a fine-tuning; --init gives better")


def _is_patience_out(run: Run) -> bool:
    if not run.config.patience or run.epochs_since_best < run.config.patience:
        return False
    logger.info("no better score for %d epochs: the run ends after step %d", run.epochs_since_best, run.steps)
    return True


def _train_epoch(parts: _Parts, place: _Place, out: Path) -> Iterator[StepRecord]:
    """Train to the end of the epoch or of the run, or until a signal, and yield each step after it was made."""
    run, sampler, config = parts.run, parts.sampler, parts.run.config.optimizer
    sampler.epoch, done = divmod(run.steps, run.origin.steps_per_epoch)
    sampler.first_batch = place_in_epoch = done * config.accumulate
    try:
        batches_left = iter(parts.loader)
    except OSError as error:
        # Their locks are files in shared memory.
        where = f"--workers {run.config.workers}"
        raise TrainingError(where, f"cannot start processes ({error})", "make /dev/shm writable, or use 0") from error
    ended = time.perf_counter()
    while run.steps < parts.total_steps:
        asked = time.perf_counter()
        try:
            with timed("data wait"):
                batches: list[Batch] = list(islice(batches_left, config.accumulate))
        except RuntimeError as error:
            if place.stop and place.world.size == 1:
                # Some schedulers send their signal to every process: the step that it cut short was not begun.
                return
            where = f"a loading process, at the tiles {sampler.tiles_of(place_in_epoch, config.accumulate)}"
            raise loading_error(where, error, "give --resume") from error
        if not batches:
            return
        waited = time.perf_counter() - asked
        tiles = sampler.tiles_of(place_in_epoch, len(batches))
        place_in_epoch += len(batches)
        rates = set_learning_rates(run.optimizer, run.steps, parts.total_steps, config)
        try:
            with timed("forward, backward, update"):
                values, counts = parts.train_step(batches)
        except TrainingError as error:
            write_json(out / f"failed_batch.{place.world.rank}.json", {"step": run.steps + 1, "tiles": tiles})
            raise TrainingError(f"step {run.steps + 1}, {error.args[0]}", *error.args[1:]) from error
        run.steps += 1
        run.loss = values["loss"]
        if run.ema is not None:
            run.ema.update_parameters(run.model)
        stopping = place.must_stop()
        # From the end of the step before, so that logs and saves between the two are part of it.
        begun, ended = ended, time.perf_counter()
        took = ended - begun
        run.elapsed_s += took
        yield StepRecord(
            step=run.steps,
            epoch=sampler.epoch + 1,
            **values,
            lr=rates.get("decoder", 0.0),
            vision_lr=rates.get("vision", 0.0),
            images=len(tiles),
            **counts,
            data_wait_s=waited,
            step_s=took,
            tiles=tiles,
        )
        if stopping:
            return


def _end_epoch(run: Run, store: Store, val_tiles: np.ndarray, place: _Place, log: RunLog, checkpoint: Path) -> None:
    """Validate, and save what is to be kept."""
    score = None
    if len(val_tiles):
        with timed("validate"):
            run.val, score, panels = validate(run.scored_model, store, val_tiles, run.config, place.world, place.device)
        log.panels(run.steps, panels)
    run.scored_steps = run.steps
    log.epoch(run.steps, -(-run.steps // run.origin.steps_per_epoch), run.val, score)
    if score is not None:
        run.epochs_since_best += 1
        if run.best_score is None or score > run.best_score:
            run.best_score, run.epochs_since_best = score, 0
            if place.world.is_main:
                save_checkpoint(checkpoint.with_name("best.pt"), run.best_content())
    if place.world.is_main:
        save_last(run, checkpoint)
