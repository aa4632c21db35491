"""Say what a run will need before it starts: parameters, steps, memory, the largest batch and time. Nothing is kept.

The memory is measured in real steps with one image, with two and with a whole batch, on the tiles with the most
objects. Other batch sizes are interpolated or extrapolated linearly. If the batch does not fit, the steps of the
largest one that should fit are timed. In a run on frames, a window of frames takes the place of an image.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.config import FitConfig
from train.data.collate import Batch, collate
from train.data.dataset import SampleRequest
from train.data.loader import training_dataset
from train.data.patients import tiles_of_patients
from train.fit.optimizer import set_learning_rates
from train.fit.policies import Policies
from train.fit.prepare import PreparedRun, prepare_run
from train.fit.validate import validate
from train.runtime.device import (
    failed_compilation_as_error,
    memory_bytes,
    out_of_memory_as_error,
    peak_memory_bytes,
    pick_device,
    reset_peak_memory,
)
from train.runtime.distributed import World
from train.runtime.machine import Machine
from train.runtime.stop import StopRequest
from train.score.answers import tiles_with_objects

TIMED_STEPS = 10
TIMED_VAL_TILES = 4
KEPT_FREE = 0.1
"""Share of the memory that the largest batch leaves free, for other programs and for batches that need more."""

GIB = 1 << 30


@dataclass(frozen=True)
class Memory:
    """Memory of a step, in bytes.

    Attributes:
        one_image: Measured peak with one image or window.
        two_images: Measured peak with two; None if two do not fit, or were not tried because they may not fit.
        batch: Measured peak with `images` images or windows; None if that many do not fit.
        images: Images or windows of a batch.
        limit: Memory of the device that this process can use.
    """

    one_image: int
    two_images: int | None
    batch: int | None
    images: int
    limit: int

    @property
    def per_image(self) -> float:
        """Bytes that each further image takes; 0 if that is not more than the noise, or is not known."""
        if self.batch is not None and self.images > 1:
            return max(self.batch - self.one_image, 0) / (self.images - 1)
        return max((self.two_images or 0) - self.one_image, 0)

    @property
    def largest_batch(self) -> int | None:
        """The largest number of images that should fit; None if no growth from image to image could be measured."""
        if self.two_images is None:
            return 1
        if not self.per_image:
            return None
        count = max(int(1 + ((1 - KEPT_FREE) * self.limit - self.one_image) // self.per_image), 0)
        return count if self.batch is not None else min(count, self.images - 1)

    @property
    def timed_batch(self) -> int:
        """Number of images of the steps that are timed: those of the batch if it fits."""
        return self.images if self.batch is not None else max(self.largest_batch or 1, 1)


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
        memory: Memory of a step.
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
    memory: Memory
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
        memory = _measured_memory(prepared, store, tiles, device)
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
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
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


def _measured_memory(prepared: PreparedRun, store: Store, tiles: NDArray[np.int64], device: torch.device) -> Memory:
    """Measure a step with one image, with two and with a batch."""
    config, step = prepared.run.config, prepared.train_step
    fullest = tiles[np.argsort(-np.diff(store.column("tiles/object_offsets"))[tiles], kind="stable")].tolist()
    dataset = training_dataset(store, config, prepared.windows)

    def batch_of(images: int) -> Batch:
        return collate([dataset[SampleRequest(fullest[place % len(fullest)], 0)] for place in range(images)])

    reset_peak_memory(device)
    before, limit = peak_memory_bytes(device), memory_bytes(device)
    # The first step makes the state of the optimizer, which stays.
    step([batch_of(1)])
    one_image = peak_of_step(prepared, [batch_of(1)], device)
    whole, two_images = (one_image if config.batch_size == 1 else None), None
    # On a CPU, a batch that does not fit would end the process. So two images are tried first, and only if they fit
    # even if the second one takes as much as the first one and the optimizer together.
    if device.type == "cpu" and 2 * one_image - before > limit:
        return Memory(one_image, None, whole, config.batch_size, limit)
    try:
        two_images = peak_of_step(prepared, [batch_of(2)], device)
        fitting = Memory(one_image, two_images, two_images, 2, limit).largest_batch
        if config.batch_size == 2:
            whole = two_images
        elif config.batch_size > 2 and (device.type != "cpu" or fitting is None or fitting >= config.batch_size):
            whole = peak_of_step(prepared, [batch_of(config.batch_size)], device)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
    return Memory(one_image, two_images, whole, config.batch_size, limit)


def peak_of_step(prepared: PreparedRun, batches: Sequence[Batch], device: torch.device) -> int:
    """Make a step with the given batches, and return the most memory that was used, in bytes."""
    reset_peak_memory(device)
    prepared.train_step(batches)
    return peak_memory_bytes(device)


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
