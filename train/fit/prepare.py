"""Prepare everything that a run needs before its first step, and restore its state if it is resumed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.config import FitConfig
from train.data.balance import ObjectTable
from train.data.loader import training_dataset, training_loader
from train.data.patients import tiles_of_patients
from train.data.sampler import EpochSampler
from train.data.windows import Windows, find_windows
from train.features.fill import check_cacheable, filled_features
from train.fit.policies import Policies
from train.fit.resume import readable_checkpoint, restore_run
from train.fit.start_check import check_against_predictor
from train.fit.state import Run, RunIdentity, start_run
from train.fit.step import TrainStep
from train.fit.step_batches import StepBatches
from train.model.acceleration import recompute_activations
from train.model.seen_patients import SeenPatients
from train.model.trained_on import TrainedOn
from train.runtime.distributed import World
from train.runtime.machine import Machine
from train.score.answers import tiles_with_objects

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready for its next step.

    Attributes:
        run: State of the run.
        batches: Loader of the batches of each step.
        train_step: Function that makes one step.
        policies: Rules that decide when to save, to validate and to end.
        val_tiles: int64 (V,), indices of the validation tiles; may be empty.
        windows: The windows of frames; None for a run on single images.
    """

    run: Run
    batches: StepBatches
    train_step: TrainStep
    policies: Policies
    val_tiles: NDArray[np.int64]
    windows: Windows | None


def prepare_run(store: Store, config: FitConfig, machine: Machine, checkpoint: Path | None) -> PreparedRun:
    """Prepare a run.

    Args:
        store: The store with tiles and prompts.
        config: Settings of the run.
        machine: Processes and device of the run.
        checkpoint: Path where `--resume` looks for the last checkpoint; None without `--resume`.

    Returns:
        The run, ready for its next step.

    Raises:
        StoreError: The store has no training tile, or lacks the prompts.
        ConfigError: The configuration does not fit the store, the machine or the resumed run.
        CheckpointError: A checkpoint cannot be read.
    """
    world, device = machine.world, machine.device
    train_tiles, val_tiles = tiles_with_objects(store, "train"), tiles_with_objects(store, "val", may_be_empty=True)
    if not len(val_tiles):
        logger.warning("%s has no validation tile, so best.pt is not written", store.path)
    _check_class_weights(store, config)
    windows = None
    if config.frames > 1:
        windows = find_windows(store, train_tiles, config.frames, config.frame_stride)
        train_tiles = windows.starts
    accumulate = config.optimizer.accumulate
    images = len(train_tiles)
    if config.patients is not None:
        train_tiles = tiles_of_patients(store, train_tiles, config.patients, config.seed)
    sampler = _sampler(store, train_tiles, images, config, world)
    dataset = training_dataset(store, config, windows)
    per_epoch = -(-len(sampler) // accumulate)
    global_batch = config.batch_size * accumulate * world.size
    origin = RunIdentity(store.manifest.complete.checksums_sha256, global_batch, per_epoch)
    run = _begin_or_resume(store, config, origin, int(train_tiles[0]), machine, checkpoint)
    if windows is not None:
        parts = ", ".join(run.model.trained_parts())
        logger.info("training takes %d windows of %d frames and trains %s", len(windows.tiles), config.frames, parts)
    _record_data(run, store, train_tiles, val_tiles)
    if config.cache_features:
        dataset.features = filled_features(run.model, store, config, train_tiles.tolist(), world, device, machine.stop)
    if config.checkpoint_activations:
        recompute_activations(run.model.sam)
    if config.compile:
        run.model.compile_parts()
    loader = training_loader(dataset, config, sampler, device)
    total_steps = config.total_steps(per_epoch)
    if config.optimizer.warmup_steps >= total_steps:
        what = "--warmup-steps %d: the run has %d steps, so its learning rates never reach their peaks"
        logger.warning(what, config.optimizer.warmup_steps, total_steps)
    return PreparedRun(
        run,
        StepBatches(loader, sampler, accumulate, per_epoch, machine),
        TrainStep(run.model, run.optimizer, config, world, device, [info.code for info in store.manifest.classes]),
        Policies(per_epoch, total_steps, config.save_every_steps, config.patience),
        val_tiles,
        windows,
    )


def _record_data(run: Run, store: Store, train_tiles: NDArray[np.int64], val_tiles: NDArray[np.int64]) -> None:
    """Record what the run trains and validates on, for its checkpoints."""
    patients = store.column("tiles/patient")
    run.trained_on = TrainedOn.of(store.manifest, run.config.prompt)
    run.seen = run.seen.joined(SeenPatients.from_names(*(set(patients[t].tolist()) for t in (train_tiles, val_tiles))))


def _sampler(
    store: Store, train_tiles: NDArray[np.int64], images: int, config: FitConfig, world: World
) -> EpochSampler:
    return EpochSampler(
        train_tiles,
        config.batch_size,
        config.seed,
        world.rank,
        world.size,
        balanced=ObjectTable.of_tiles(store, train_tiles) if config.balance == "classes" else None,
        max_objects=config.max_objects,
        images=images,
    )


def _check_class_weights(store: Store, config: FitConfig) -> None:
    """Compare the codes of `loss.class_weights` with the classes of the store.

    Raises:
        ConfigError: None of the codes is a class of the store.
    """
    known = {info.code: info.name for info in store.manifest.classes}
    strangers = sorted(config.loss.class_weights.keys() - known.keys())
    if not strangers:
        return
    classes = ", ".join(f"{code} ({name})" for code, name in sorted(known.items()))
    if len(strangers) == len(config.loss.class_weights):
        raise ConfigError("loss.class_weights", f"names no class of {store.path}", f"use codes from {classes}")
    logger.warning("loss.class_weights: %s are not classes of the store, which has %s", strangers, classes)


def _begin_or_resume(
    store: Store, config: FitConfig, origin: RunIdentity, first_tile: int, machine: Machine, checkpoint: Path | None
) -> Run:
    """Build the model and its optimizer; if there is a last checkpoint, restore them from it."""
    # Only the main process looks for the checkpoint, because a damaged file is renamed.
    found = readable_checkpoint(checkpoint) if checkpoint and machine.world.is_main else None
    resumed = machine.world.gather(found)[0]
    # A checkpoint holds all weights, so a resumed run does not read the file of --init, which may be gone.
    begun_with = config if resumed is None else config.model_copy(update={"init": None})
    run = start_run(begun_with, origin, machine.device)
    if config.cache_features:
        check_cacheable(run.model, store, config)
    if resumed is not None:
        restore_run(run, resumed)
        return run
    if checkpoint is not None:
        logger.warning("%s does not exist, so the run starts at step 1", checkpoint)
    if config.init:
        logger.info("training starts from %s", config.init)
        check_against_predictor(run.model, store, first_tile, machine.device)
    else:
        logger.warning("training starts from random weights, which need far more data than fine-tuning; give --init")
    return run
