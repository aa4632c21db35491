from dataclasses import replace

import pytest
import torch

from schemas.errors import StoreError
from schemas.store import Store
from train.dataset import SampleOptions, SampleRequest, TileDataset

OPTIONS = SampleOptions(image_size=128, prompt="mixed", negatives=False, max_objects=2, augment=True, seed=0)


def test_sample_is_a_function_of_its_request(store: Store) -> None:
    one, two = TileDataset(store.path, OPTIONS), TileDataset(store.path, OPTIONS)
    two[SampleRequest(3, 0)]
    first, second = one[SampleRequest(5, 2)], two[SampleRequest(5, 2)]
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.point_coords, second.point_coords)
    others = [one[SampleRequest(5, epoch)].image for epoch in range(8)]
    assert not all(torch.equal(first.image, other) for other in others)


def test_mixed_draws_boxes_and_clicks(store: Store) -> None:
    dataset = TileDataset(store.path, OPTIONS)
    widths = {dataset[SampleRequest(0, epoch)].point_labels.shape[1] for epoch in range(20)}
    assert widths == {1, 2}


def test_objects_are_bounded_and_drawn_from_all(store: Store) -> None:
    tile = next(record.index for record in store if len(record.object_ids) >= 3)
    dataset = TileDataset(store.path, OPTIONS)
    drawn = [dataset[SampleRequest(tile, epoch)].object_ids.tolist() for epoch in range(40)]
    assert all(len(ids) == 2 for ids in drawn)
    assert {object_id for ids in drawn for object_id in ids} == set(store[tile].object_ids.tolist())


def test_without_augmentation_the_tile_is_as_stored(store: Store) -> None:
    dataset = TileDataset(store.path, replace(OPTIONS, augment=False))
    assert torch.equal(dataset[SampleRequest(4, 9)].image, torch.from_numpy(store[4].image).permute(2, 0, 1))


def test_prompt_kind_is_checked_before_the_first_sample(store: Store) -> None:
    dataset = TileDataset(store.path, replace(OPTIONS, prompt="scribble"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(StoreError, match="scribble"):
        dataset.check()
