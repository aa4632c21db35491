"""The processes of a run, as `torchrun` describes them in the environment, and the values that they exchange."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from schemas.errors import BcssError

T = TypeVar("T")

logger = logging.getLogger(__name__)

TIMEOUT = timedelta(minutes=30)
"""Longest wait for another process, with time for a validation on a slow disk.

A process that died is noticed at once, because its connection closes."""

NO_TIMEOUT = timedelta(days=365)
"""For processes that work on their own for as long as it takes, and then wait for each other."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        gpu: Number of this process's GPU among those of its machine, from 0.
    """

    rank: int = 0
    size: int = 1
    gpu: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Sum numbers over all processes. They stay in CPU memory, so the sum does not wait for the GPU."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device="cpu")
        dist.all_reduce(summed)
        return summed.tolist()

    def gather(self, value: object) -> list[Any]:
        """Return the picklable values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def together(self, work: Callable[[], T]) -> T:
        """Call a function in every process, and return what it returns here; all processes must call this.

        Raises:
            BcssError: The function failed, here or in another process.
            OSError: The same.
        """
        found: list[T] = []
        failed: BcssError | OSError | None = None
        try:
            found.append(work())
        except (BcssError, OSError) as error:
            failed = error
        for error in (failed, *self.gather(failed)):
            if error is not None:
                raise error
        return found[0]

    def wait(self) -> None:
        """Wait until all processes call this."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def open_world(device_type: str, timeout: timedelta | None = None) -> Generator[World]:
    """Join the group of processes that `torchrun` started; without `torchrun`, the run has one process.

    Args:
        device_type: `cuda` or `cpu`. With `cuda`, weights and gradients are exchanged by nccl, other values by gloo. If
            a machine has more processes than GPUs, they share its GPUs, and everything is exchanged by gloo, because
            nccl allows one process per GPU.
        timeout: Longest wait for another process; None is `TIMEOUT`.

    Yields:
        The processes of the run.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    backend, gpu = _backend_and_gpu() if device_type == "cuda" else ("gloo", 0)
    world = World(int(os.environ["RANK"]), size, gpu)
    dist.init_process_group(backend, timeout=timeout or TIMEOUT)
    try:
        yield world
    finally:
        dist.destroy_process_group()


@contextmanager
def raised_once(world: World) -> Generator[None]:
    """Let only the first process raise an error that all processes have; the others end without one.

    If they failed, `torchrun` would end the first process, perhaps before it has printed the error.

    Args:
        world: The processes.

    Raises:
        BcssError: The error, in the first process.
        OSError: The same.
    """
    try:
        yield
    except (BcssError, OSError):
        if world.is_main:
            raise
        sys.exit(0)


def use_own_gpu() -> int:
    """Make this process use its GPU, and return the number. The processes of a machine take its GPUs in turn."""
    gpu = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    torch.cuda.set_device(gpu)
    return gpu


def _backend_and_gpu() -> tuple[str, int]:
    """Choose the backend of a run on GPUs, and make this process use its GPU; return both."""
    processes, gpus, gpu = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count(), use_own_gpu()
    if processes <= gpus:
        return "cpu:gloo,cuda:nccl", gpu
    logger.warning("%d processes share %d GPUs, which is slower than one process per GPU", processes, gpus)
    return "gloo", gpu
