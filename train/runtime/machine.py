"""The processes and the device of a run, and whether it was asked to stop."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from train.runtime.distributed import World
from train.runtime.stop import StopRequest


@dataclass(frozen=True)
class Machine:
    """Processes and device of a run.

    Attributes:
        world: All processes of the run.
        device: Device that this process computes on.
        stop: Whether a signal asked this process to stop.
    """

    world: World
    device: torch.device
    stop: StopRequest

    def must_stop(self) -> bool:
        """Return whether any process was asked to stop. All processes call it together and so stop together."""
        asked = self.world.sum([float(bool(self.stop))])[0] > 0
        if asked:
            self.stop.by = self.stop.by or "SIGTERM"
        return asked
