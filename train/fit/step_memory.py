"""Measure the memory of a step, and find the largest batch that should fit.

It is measured in real steps with one image, with two and with a whole batch, on the tiles with the most objects. Other
batch sizes are interpolated or extrapolated linearly. In a run on frames, a window takes the place of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.store.store import Store
from train.data.collate import Batch, collate
from train.data.dataset import SampleRequest
from train.data.loader import training_dataset
from train.fit.prepare import PreparedRun
from train.runtime.device import memory_bytes, peak_memory_bytes, reset_peak_memory

KEPT_FREE = 0.1
"""Share of the memory that the largest batch leaves free, for other programs and for batches that need more."""


@dataclass(frozen=True)
class StepMemory:
    """The memory of a step, in bytes.

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


def measured_memory(prepared: PreparedRun, store: Store, tiles: NDArray[np.int64], device: torch.device) -> StepMemory:
    """Measure a step with one image, with two and with a batch.

    Args:
        prepared: The run.
        store: Its store.
        tiles: Indices of its tiles.
        device: The device of the run.
    """
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
        return StepMemory(one_image, None, whole, config.batch_size, limit)
    try:
        two_images = peak_of_step(prepared, [batch_of(2)], device)
        fitting = StepMemory(one_image, two_images, two_images, 2, limit).largest_batch
        if config.batch_size == 2:
            whole = two_images
        elif config.batch_size > 2 and (device.type != "cpu" or fitting is None or fitting >= config.batch_size):
            whole = peak_of_step(prepared, [batch_of(config.batch_size)], device)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
    return StepMemory(one_image, two_images, whole, config.batch_size, limit)


def peak_of_step(prepared: PreparedRun, batches: Sequence[Batch], device: torch.device) -> int:
    """Make a step with the given batches, and return the most memory that was used, in bytes."""
    reset_peak_memory(device)
    prepared.train_step(batches)
    return peak_memory_bytes(device)
