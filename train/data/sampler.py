"""Draw the order in which tiles are trained on.

The order depends on the seed and the epoch alone. It is cut into global batches, and each rank takes its share of every
global batch. The code here uses neither a store nor a process group: rank and world size are arguments.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from train.data.balance import NO_OBJECT, ImageOrder, ObjectTable, balanced_images, plain_images
from train.data.dataset import SampleRequest


class EpochSampler(Sampler[list[SampleRequest]]):
    """A batch sampler that yields the sample requests of one epoch.

    Args:
        tile_indices: Indices of the tiles to train on, int (N,).
        batch_size: Number of images per process and step.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.
        balanced: The objects to draw so that all classes come equally often. None lets each tile come once; its objects
            are then drawn when it is read.
        max_objects: Largest number of objects of an image, with `balanced`.
        images: Number of images of an epoch; None means N. With more, the tiles come several times.

    Attributes:
        epoch: Number of the epoch; set it before each iteration.
        first_batch: Number of the batch to begin with; a resumed run begins after the batches that it has seen.
    """

    def __init__(
        self,
        tile_indices: np.ndarray,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        balanced: ObjectTable | None = None,
        max_objects: int = 1,
        images: int | None = None,
    ) -> None:
        self.tile_indices = tile_indices
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.balanced = balanced
        self.max_objects = max_objects
        self.images = len(tile_indices) if images is None else images
        self.epoch = 0
        self.first_batch = 0
        self._kept: tuple[int, ImageOrder] | None = None

    def __len__(self) -> int:
        return -(-self.images // (self.batch_size * self.world_size))

    def tiles_of(self, first_batch: int, batches: int) -> list[int]:
        """Return the tile indices of a range of batches of the epoch, for all processes together."""
        global_batch = self.batch_size * self.world_size
        return self._order().tiles[first_batch * global_batch : (first_batch + batches) * global_batch].tolist()

    def _order(self) -> ImageOrder:
        """Return the images in the order of the epoch; the order is kept, because every step needs part of it."""
        if self._kept is None or self._kept[0] != self.epoch:
            self._kept = self.epoch, self._drawn(np.random.default_rng([self.seed, self.epoch]))
        return self._kept[1]

    def _drawn(self, generator: np.random.Generator) -> ImageOrder:
        if self.balanced is None:
            return plain_images(self.tile_indices, self.images, generator)
        return balanced_images(self.balanced, self.images, self.max_objects, generator)

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        total = len(self._order().tiles)
        global_batch = self.batch_size * self.world_size
        for start in range(self.first_batch * global_batch, total, global_batch):
            batch = range(start, min(start + global_batch, total))
            mine = [self._request(place) for place in batch[self.rank :: self.world_size]]
            # The last batch may have fewer tiles than there are processes. A process without a tile gets an empty
            # sample, because it must still take part in every collective operation.
            yield mine or [self._request(start, empty=True)]

    def _request(self, place: int, *, empty: bool = False) -> SampleRequest:
        order = self._order()
        ids = None
        if order.object_ids is not None:
            ids = tuple(number for number in order.object_ids[place].tolist() if number != NO_OBJECT)
        return SampleRequest(int(order.tiles[place]), self.epoch, empty, ids, int(order.repeats[place]))
