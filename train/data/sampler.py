"""The order of training: a pure function of seed and epoch, cut into global batches, of which a rank takes its slice.

Nothing here touches a store or a process group; rank and world size are arguments.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from train.data.dataset import SampleRequest


class EpochSampler(Sampler[list[SampleRequest]]):
    """Batches of requests for one epoch at a time.

    Args:
        tile_indices: int (N,), the tiles to train on.
        batch_size: Images per process and step.
        seed: Of the order.
        rank: This process.
        world_size: All processes.

    Attributes:
        epoch: Set it before each iteration.
        first_batch: Where in the epoch to begin; a resumed run begins after the batches it has seen.
    """

    def __init__(
        self, tile_indices: np.ndarray, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.tile_indices = tile_indices
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.first_batch = 0
        self._kept: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return -(-len(self.tile_indices) // (self.batch_size * self.world_size))

    def tiles_of(self, first_batch: int, batches: int) -> list[int]:
        """The tiles of some batches of the epoch, over all processes."""
        global_batch = self.batch_size * self.world_size
        return self._order()[first_batch * global_batch : (first_batch + batches) * global_batch].tolist()

    def _order(self) -> np.ndarray:
        """The order of the epoch; kept, since each step asks for a part of it."""
        if self._kept is None or self._kept[0] != self.epoch:
            self._kept = self.epoch, np.random.default_rng([self.seed, self.epoch]).permutation(self.tile_indices)
        return self._kept[1]

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        order = self._order()
        global_batch = self.batch_size * self.world_size
        for start in range(self.first_batch * global_batch, len(order), global_batch):
            batch = order[start : start + global_batch]
            mine = [SampleRequest(int(tile), self.epoch) for tile in batch[self.rank :: self.world_size]]
            # The last batch may be too small for all; whoever has nothing to train still joins every collective.
            yield mine or [SampleRequest(int(batch[0]), self.epoch, empty=True)]
