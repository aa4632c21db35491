"""Load the batches of each step in the order of the run. Loading can start at any step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from schemas.command.stage_timer import timed
from schemas.errors import TrainingError
from train.data.collate import Batch
from train.data.sampler import EpochSampler
from train.runtime.loading_process import loading_error, start_loading
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


@dataclass(frozen=True)
class _Ahead:
    """The data that was loaded for the next step while the GPU computed the last one.

    Attributes:
        step: Number of steps done before the step that the data is for.
        loaded: The data; None in the case where `StepBatches.load` returns None.
        failure: The error that loading raised, or None.
        copies: The stream that copies the batches.
    """

    step: int
    loaded: LoadedStep | None
    failure: TrainingError | None
    copies: torch.cuda.Stream

    @classmethod
    def fetched(
        cls, step: int, fetch: Callable[[int], LoadedStep | None], copies: torch.cuda.Stream, device: torch.device
    ) -> _Ahead:
        asked, computed = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        # No copy is running, so the GPU records `asked` now. It records `computed` when it has finished the last step.
        asked.record(copies)
        computed.record()
        try:
            loaded = fetch(step)
        except TrainingError as error:
            return cls(step, None, error, copies)
        if loaded is None:
            return cls(step, None, None, copies)
        # The step waits only for the time in which the GPU had nothing to compute.
        is_idle = asked.query() and computed.query()
        hidden_s = asked.elapsed_time(computed) / 1000 if is_idle else loaded.wait_s
        with torch.cuda.stream(copies):
            batches = [batch.to(device) for batch in loaded.batches]
        return cls(step, replace(loaded, batches=batches, wait_s=max(0.0, loaded.wait_s - hidden_s)), None, copies)

    def taken(self) -> LoadedStep | None:
        """Return the data; the GPU starts to compute with it only after it has been copied."""
        if self.failure is not None:
            raise self.failure
        if self.loaded is not None:
            computing = torch.cuda.current_stream()
            computing.wait_stream(self.copies)
            for batch in self.loaded.batches:
                batch.record_stream(computing)
        return self.loaded


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
        self._ahead: _Ahead | None = None
        self._copies: torch.cuda.Stream | None = None
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
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.step == step:
            return ahead.taken()
        if step != self._next_step or not step % self._steps_per_epoch:
            self._begin(step)
        return self._fetch(step)

    def load_ahead(self, step: int) -> None:
        """Load the next step's batches and copy them to the GPU while it computes; `load` then returns them.

        Without a GPU, and at the start of an epoch, this does nothing. A failure is raised only by the next `load`, so
        that the step that is still being computed can finish.

        Args:
            step: The number that the next call of `load` will be given.
        """
        if self._machine.device.type == "cuda" and step % self._steps_per_epoch:
            copies = self._copies = self._copies or torch.cuda.Stream(self._machine.device)
            self._ahead = _Ahead.fetched(step, self._fetch, copies, self._machine.device)

    def _fetch(self, step: int) -> LoadedStep | None:
        first_batch = step % self._steps_per_epoch * self._accumulate
        asked_s = time.perf_counter()
        failure: TrainingError | None = None
        try:
            with timed("data wait"):
                batches = list(islice(self._left, self._accumulate))
        except RuntimeError as error:
            batches, self._left = [], iter(())
            where = f"a loading process, at the tiles {self._sampler.tiles_of(first_batch, self._accumulate)}"
            failure = loading_error(where, error, "give --resume")
        # Torch's error refers to the loader, so the failure is raised after it is gone.
        if failure:
            if self._machine.stop and self._machine.world.size == 1:
                # Some schedulers send the signal to every process. This step has not begun, so nothing is lost.
                return None
            raise failure
        self._next_step = step + 1
        return LoadedStep(batches, self._sampler.tiles_of(first_batch, len(batches)), time.perf_counter() - asked_s)

    def lap(self) -> float:
        """Return the seconds since the last call or the epoch's start, including logging and saving between steps."""
        now_s = time.perf_counter()
        took_s, self._lap_began_s = now_s - self._lap_began_s, now_s
        return took_s

    def close(self) -> None:
        """End the loading processes, which otherwise live as long as an error whose traceback refers to the loader."""
        self._left, self._ahead = iter(()), None
        del self._loader

    def _begin(self, step: int) -> None:
        epoch, done = divmod(step, self._steps_per_epoch)
        self._sampler.epoch, self._sampler.first_batch = epoch, done * self._accumulate
        try:
            self._left = start_loading(self._loader)
        except OSError as error:
            # Loading processes keep their locks as files in shared memory.
            where = f"--workers {self._loader.num_workers}"
            what = f"cannot start processes ({error})"
            raise TrainingError(where, what, "make /dev/shm writable, or use --workers 0") from error
        self._lap_began_s = time.perf_counter()
