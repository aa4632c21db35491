"""Load the batches of each step in the order of the run, from any step on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from schemas.command.stage_timer import timed
from schemas.errors import TrainingError
from train.data.collate import Batch
from train.data.sampler import EpochSampler
from train.runtime.loading_process import loading_error
from train.runtime.machine import Machine


@dataclass(frozen=True)
class LoadedStep:
    """The data of one step.

    Attributes:
        batches: The batches of this process, whose gradients are summed.
        tiles: Indices of the step's tiles, over all processes.
        wait_s: Seconds that the step waited for its batches.
    """

    batches: list[Batch]
    tiles: list[int]
    wait_s: float


class StepBatches:
    """Loads the batches of one step after another.

    Args:
        loader: Loader of the batches of an epoch.
        sampler: Sampler that orders the tiles.
        accumulate: Batches per step.
        steps_per_epoch: Steps per epoch.
        machine: Processes and device of the run.
    """

    def __init__(
        self, loader: DataLoader[Any], sampler: EpochSampler, accumulate: int, steps_per_epoch: int, machine: Machine
    ) -> None:
        self._loader = loader
        self._sampler = sampler
        self._accumulate = accumulate
        self._steps_per_epoch = steps_per_epoch
        self._machine = machine
        self._left: Iterator[Batch] = iter(())
        self._next_step = -1
        self._lap_began_s = 0.0

    def load(self, step: int) -> LoadedStep | None:
        """Load the batches of a step.

        Args:
            step: Number of steps done before this one. If it does not follow the step of the last call, loading starts
                again inside an epoch.

        Returns:
            The batches; None if a signal that ends the run has also ended the loading processes.

        Raises:
            TrainingError: A loading process failed or cannot be started.
        """
        epoch, done = divmod(step, self._steps_per_epoch)
        first_batch = done * self._accumulate
        if step != self._next_step or not done:
            self._begin(epoch, first_batch)
        asked_s = time.perf_counter()
        try:
            with timed("data wait"):
                batches = list(islice(self._left, self._accumulate))
        except RuntimeError as error:
            if self._machine.stop and self._machine.world.size == 1:
                # Some schedulers send the signal to every process. This step has not begun, so nothing is lost.
                return None
            where = f"a loading process, at the tiles {self._sampler.tiles_of(first_batch, self._accumulate)}"
            raise loading_error(where, error, "give --resume") from error
        self._next_step = step + 1
        return LoadedStep(batches, self._sampler.tiles_of(first_batch, len(batches)), time.perf_counter() - asked_s)

    def lap(self) -> float:
        """Return the seconds since the last call, or since the epoch began; logging and saving between steps count."""
        now_s = time.perf_counter()
        took_s, self._lap_began_s = now_s - self._lap_began_s, now_s
        return took_s

    def _begin(self, epoch: int, first_batch: int) -> None:
        self._sampler.epoch, self._sampler.first_batch = epoch, first_batch
        try:
            self._left = iter(self._loader)
        except OSError as error:
            # Loading processes keep their locks as files in shared memory.
            where = f"--workers {self._loader.num_workers}"
            what = f"cannot start processes ({error})"
            raise TrainingError(where, what, "make /dev/shm writable, or use --workers 0") from error
        self._lap_began_s = time.perf_counter()
