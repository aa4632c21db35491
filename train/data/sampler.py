"""Draw the order in which tiles are trained on.

The order depends on the seed and the epoch alone. It is cut into global batches, and each rank takes its share of every
global batch. The code here uses neither a store nor a process group: rank and world size are arguments.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from train.data.dataset import SampleRequest


class EpochSampler(Sampler[list[SampleRequest]]):
    """A batch sampler that yields the sample requests of one epoch.

    Args:
        tile_indices: Indices of the tiles to train on, int (N,).
        batch_size: Number of images per process and step.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.

    Attributes:
        epoch: Number of the epoch; set it before each iteration.
        first_batch: Number of the batch to begin with; a resumed run begins after the batches that it has seen.
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
        """Return the tile indices of a range of batches of the epoch, for all processes together."""
        global_batch = self.batch_size * self.world_size
        return self._order()[first_batch * global_batch : (first_batch + batches) * global_batch].tolist()

    def _order(self) -> np.ndarray:
        """Return the tile indices in the order of the epoch; the order is kept, because every step needs part of it."""
        if self._kept is None or self._kept[0] != self.epoch:
            self._kept = self.epoch, np.random.default_rng([self.seed, self.epoch]).permutation(self.tile_indices)
        return self._kept[1]

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        order = self._order()
        global_batch = self.batch_size * self.world_size
        for start in range(self.first_batch * global_batch, len(order), global_batch):
            batch = order[start : start + global_batch]
            mine = [SampleRequest(int(tile), self.epoch) for tile in batch[self.rank :: self.world_size]]
            # The last batch may have fewer tiles than there are processes. A process without a tile gets an empty
            # sample, because it must still take part in every collective operation.
            yield mine or [SampleRequest(int(batch[0]), self.epoch, empty=True)]
