"""Say what a run will need before it starts: parameters, steps, memory, the largest batch and time. Nothing is kept.

If the batch does not fit, the steps of the largest one that should fit are timed. In a run on frames, a window of
frames takes the place of an image.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass

import numpy as np

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.config import FitConfig
from train.data.patients import tiles_of_patients
from train.fit.optimizer import set_learning_rates
from train.fit.policies import Policies
from train.fit.prepare import PreparedRun, prepare_run
from train.fit.step_memory import KEPT_FREE, StepMemory, measured_memory
from train.fit.validate import validate
from train.runtime.device import (
    device_name,
    failed_compilation_as_error,
    out_of_memory_as_error,
    pick_device,
)
from train.runtime.distributed import World
from train.runtime.machine import Machine
from train.runtime.stop import StopRequest
from train.score.answers import tiles_with_objects

TIMED_STEPS = 10
TIMED_VAL_TILES = 4
GIB = 1 << 30


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
        config: Settings of the run.
        device: Device that was measured, as `summary.json` names it.
        trained_parts: Number of parameters that train, by part of SAM 2.
        frozen: Number of the other parameters.
        train_tiles: Number of training tiles with objects, or of windows.
        val_tiles: Number of validation tiles with objects.
        steps_per_epoch: Steps of an epoch.
        steps: Steps of the run.
        memory: The memory of a step.
        most_objects: Objects of the fullest image, or of the fullest first frame of a window.
        timed: Rules of the run whose steps are timed. They are those of a smaller batch if the batch does not fit.
        step_s: Median seconds of a step of that run.
        val_tile_s: Seconds of the validation of one tile; None without a validation split.
    """

    config: FitConfig
    device: str
    trained_parts: dict[str, int]
    frozen: int
    train_tiles: int
    val_tiles: int
    steps_per_epoch: int
    steps: int
    memory: StepMemory
    most_objects: int
    timed: Policies
    step_s: float
    val_tile_s: float | None

    @property
    def trained(self) -> int:
        """Number of parameters that train."""
        return sum(self.trained_parts.values())

    @property
    def validations(self) -> int:
        """Number of validations: one at the start, and one after each epoch, or two with a moving average."""
        epochs = -(-self.timed.total_steps // self.timed.steps_per_epoch)
        return 1 + epochs * (2 if self.config.optimizer.ema_decay else 1)

    def lines(self) -> list[str]:
        """Describe the plan for a terminal."""
        config = self.config
        images = self._images(config.batch_size * config.optimizer.accumulate)
        parts = ", ".join(f"{part} {count:,}" for part, count in self.trained_parts.items())
        data = "training tiles" if config.frames == 1 else f"training windows of {config.frames} frames"
        epochs = self.steps / self.steps_per_epoch
        network = f"{config.model} at {config.image_size} px"
        return [
            f"model    {network}: {self.trained:,} parameters train, {self.frozen:,} do not",
            f"trains   {parts}",
            f"data     {self.train_tiles} {data}, {self.val_tiles} validation tiles",
            f"run      {self.steps} steps of {images}, {epochs:.3g} epochs of {self.steps_per_epoch} steps",
            *self._memory_lines(),
            self._time_line(),
        ]

    def _images(self, count: int) -> str:
        """Return a number of images, or of windows in a run on frames."""
        frames, plural = self.config.frames, "" if count == 1 else "s"
        return f"{count} image{plural}" if frames == 1 else f"{count} window{plural} of {frames} frames"

    def _memory_lines(self) -> list[str]:
        memory, objects = self.memory, f"of up to {self.most_objects} objects"
        batch, one = self._images(memory.images), "image" if self.config.frames == 1 else "window"
        if memory.batch is None:
            what = (
                f"{_size(memory.one_image)} for one {one}, but {batch} {objects} do not fit into {_size(memory.limit)}"
            )
        else:
            what = f"{_size(memory.batch)} at the peak of a step with {batch} {objects}"
        return [f"memory   {what} ({self.device})", f"batch    {self._largest(one)}"]

    def _largest(self, one: str) -> str:
        """Say how many images, or windows, fit."""
        memory, limit = self.memory, _size(self.memory.limit)
        if memory.two_images is None:
            return f"about 1 {one} fits into {limit}: two do not, or it is not sure that they do"
        if memory.largest_batch is None:
            return f"a second {one} took no more memory that could be measured, so the largest batch is not known"
        many = f"{one} fits" if memory.largest_batch == 1 else f"{one}s fit"
        parts = f"{_size(memory.one_image)} for one and {_size(memory.per_image)} for each further {one}"
        return f"about {memory.largest_batch} {many} into {limit}, extrapolated: {parts}, and {KEPT_FREE:.0%} stay free"

    def _time_line(self) -> str:
        steps, batch = self.timed.total_steps, self.memory.timed_batch
        training_s, validation_s = steps * self.step_s, 0.0
        said = f"{_duration(training_s)} for the steps ({self.step_s:.2f} s each)"
        if self.memory.batch is None:
            said = f"with --batch-size {batch}, {_duration(training_s)} for {steps} steps ({self.step_s:.2f} s each)"
        if self.val_tile_s is not None:
            validation_s = self.validations * self.val_tiles * self.val_tile_s
            said += f", {_duration(validation_s)} for {self.validations} validations"
        return f"time     {said}: about {_duration(training_s + validation_s)}"


def plan_run(store: Store, config: FitConfig) -> Plan:
    """Measure a few steps of a run and tell what the run will need. No file is written.

    Args:
        store: The store with tiles and prompts.
        config: Settings of the run.

    Raises:
        StoreError: The store has no training tile, or lacks the prompts.
        ConfigError: The configuration does not fit the store or the machine, or needs a cache of features.
        CheckpointError: The file of `--init` cannot be read.
        TrainingError: Not even one image fits the device's memory.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--plan", "runs in one process", "start it without torchrun")
    if config.cache_features:
        raise ConfigError("--plan", "cannot be used with --cache-features", "plan the run without the cache")
    device = pick_device(config.device)
    machine = Machine(World(), device, StopRequest())
    prepared = prepare_run(store, config, machine, None)
    model = prepared.run.model
    tiles = tiles_with_objects(store, "train") if prepared.windows is None else prepared.windows.starts
    if config.patients is not None:
        tiles = tiles_of_patients(store, tiles, config.patients, config.seed)
    with out_of_memory_as_error(config.model_copy(update={"batch_size": 1})), failed_compilation_as_error(config):
        memory = measured_memory(prepared, store, tiles, device)
    val_tile_s = _validation_seconds(prepared, store, machine) if len(prepared.val_tiles) else None
    trained_parts, policies, val_tiles = model.trained_parts(), prepared.policies, prepared.val_tiles
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    timed = config.model_copy(update={"batch_size": memory.timed_batch})
    with out_of_memory_as_error(timed), failed_compilation_as_error(timed):
        if memory.batch is None:
            # The run is prepared for smaller batches, after the first one has left the memory.
            del prepared, model
            prepared = prepare_run(store, timed, machine, None)
        step_s = _step_seconds(prepared)
    return Plan(
        config=config,
        device=device_name(device),
        trained_parts=trained_parts,
        frozen=frozen,
        train_tiles=len(tiles),
        val_tiles=len(val_tiles),
        steps_per_epoch=policies.steps_per_epoch,
        steps=policies.total_steps,
        memory=memory,
        most_objects=int(min(np.diff(store.column("tiles/object_offsets"))[tiles].max(), config.max_objects)),
        timed=prepared.policies,
        step_s=step_s,
        val_tile_s=val_tile_s,
    )


def _step_seconds(prepared: PreparedRun) -> float:
    """Return the median seconds of the first steps, with their data; the very first one starts everything up."""
    run, policies = prepared.run, prepared.policies
    seconds: list[float] = []
    for step in range(min(TIMED_STEPS + 1, policies.total_steps)):
        began_s = time.perf_counter()
        loaded = prepared.batches.load(step)
        if loaded is None:
            break
        set_learning_rates(run.optimizer, step, policies.total_steps, run.config.optimizer)
        prepared.train_step(loaded.batches)
        seconds.append(time.perf_counter() - began_s)
    return statistics.median(seconds[1:] or seconds)


def _validation_seconds(prepared: PreparedRun, store: Store, machine: Machine) -> float:
    """Return the seconds of the validation of one tile."""
    tiles = prepared.val_tiles[:TIMED_VAL_TILES]
    began_s = time.perf_counter()
    validate(prepared.run.model, store, tiles, prepared.run.config, machine.world, machine.device)
    return (time.perf_counter() - began_s) / len(tiles)


def _size(size_bytes: float) -> str:
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes / (1 << 20):.0f} MiB"


def _duration(seconds: float) -> str:
    """Write a duration in the two largest units that it has."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest_s} s" if minutes else f"{rest_s} s"
