import numpy as np
import pytest

from train.data.sampler import EpochSampler


def _epoch(sampler: EpochSampler, epoch: int) -> list[list[int]]:
    sampler.epoch = epoch
    return [[request.tile_index for request in batch if not request.empty] for batch in sampler]


TILES = np.arange(100, 123)


def test_an_epoch_sees_every_tile_once_in_an_order_of_its_own() -> None:
    sampler = EpochSampler(TILES, batch_size=4, seed=0)
    first, second = _epoch(sampler, 0), _epoch(sampler, 1)
    assert sorted([tile for batch in first for tile in batch]) == TILES.tolist()
    assert len(first) == len(sampler) == 6
    assert first != second
    assert first == _epoch(EpochSampler(TILES, 4, seed=0), 0)
    assert first != _epoch(EpochSampler(TILES, 4, seed=1), 0)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_global_batches(world_size: int) -> None:
    alone = _epoch(EpochSampler(TILES, 4, seed=0), 3)
    ranks = [_epoch(EpochSampler(TILES, 4 // world_size, 0, rank, world_size), 3) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        assert sorted([tile for rank in ranks for tile in rank[step]]) == sorted(batch)


def test_resume_starts_where_it_stopped() -> None:
    sampler = EpochSampler(TILES, 4, seed=0)
    whole = _epoch(sampler, 2)
    sampler.first_batch = 3
    assert _epoch(sampler, 2) == whole[3:]
