"""One process or many: what `torchrun` says in the environment, and the few sums that processes share."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = timedelta(minutes=30)
"""Long enough for a validation on rank 0's disk; a process that died is noticed at once, by its closed connection."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: This process, 0 in a run of one.
        size: How many there are.
        local_rank: This process among those of its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Sum numbers over all processes, from memory to memory: a GPU that computes meanwhile is not waited for."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64, device="cpu")
        dist.all_reduce(summed)
        return summed.tolist()

    def gather(self, value: object) -> list[Any]:
        """Collect a picklable value of every process, by rank."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def open_world(device_type: str) -> Generator[World]:
    """Join the processes that `torchrun` started; alone where it did not.

    Args:
        device_type: For `cuda`, weights and gradients go by nccl; all else goes by gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if device_type == "cuda":
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield world
    finally:
        dist.destroy_process_group()
