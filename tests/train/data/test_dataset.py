from dataclasses import replace

import pytest
import torch

from schemas.errors import StoreError
from schemas.prompt_kinds import PointLabel
from schemas.store.store import Store
from train.data.dataset import SampleOptions, SampleRequest, TileDataset
from train.transforms.augment import AugmentConfig
from train.transforms.geometry import mask_box

OPTIONS = SampleOptions(image_size=128, max_objects=2)


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
    dataset = TileDataset(store.path, replace(OPTIONS, augment=AugmentConfig(orientation=False)))
    assert torch.equal(dataset[SampleRequest(4, 9)].image, torch.from_numpy(store[4].image).permute(2, 0, 1))


def test_prompt_kind_is_checked_before_the_first_sample(store: Store) -> None:
    dataset = TileDataset(store.path, replace(OPTIONS, prompt="scribble"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(StoreError, match="scribble"):
        dataset.check()


def test_random_prompts_are_drawn_from_the_mask(store: Store) -> None:
    dataset = TileDataset(store.path, replace(OPTIONS, prompt="random"))
    kinds = set()
    for epoch in range(30):
        sample = dataset[SampleRequest(1, epoch)]
        again = dataset[SampleRequest(1, epoch)]
        assert torch.equal(sample.point_coords, again.point_coords)
        kinds.add(sample.point_labels.shape[1])
        for segment, coords, labels in zip(sample.segments, sample.point_coords, sample.point_labels, strict=True):
            if labels.tolist() == [1]:
                x, y = coords[0].int().tolist()
                assert segment[y, x]
            else:
                box = mask_box(segment).float()
                reach = ((box[2:] - box[:2] + 1) * 0.1).clamp(max=20).repeat(2)
                assert ((coords.flatten() - box).abs() <= reach + 1e-4).all()
                assert labels.tolist() == [2, 3]
    assert kinds == {1, 2}


def test_box_jitter_changes_boxes_alone_and_follows_the_request(store: Store) -> None:
    plain, jittered = (TileDataset(store.path, replace(OPTIONS, corrections=2, box_jitter=share)) for share in (0, 0.1))
    boxes = 0
    for epoch in range(12):
        request = SampleRequest(0, epoch)
        before, after, again = plain[request], jittered[request], jittered[request]
        assert torch.equal(after.point_coords, again.point_coords)
        for one, other in ((before.image, after.image), (before.segments, after.segments)):
            assert torch.equal(one, other)
        assert before.click_draws is not None
        assert after.click_draws is not None
        assert torch.equal(before.click_draws, after.click_draws)
        has_box = bool((before.point_labels == PointLabel.BOX_TOP_LEFT).any())
        assert torch.equal(before.point_coords, after.point_coords) != has_box
        boxes += has_box
    assert 0 < boxes < 12


def test_empty_request_has_an_image_and_no_object(store: Store) -> None:
    sample = TileDataset(store.path, OPTIONS)[SampleRequest(0, 0, empty=True)]
    assert sample.image.shape == (3, 128, 128)
    assert len(sample.object_ids) == sample.dropped == 0


@pytest.mark.parametrize("wanted", [True, False])
def test_negative_points_come_where_wanted(store: Store, wanted: bool) -> None:
    dataset = TileDataset(store.path, replace(OPTIONS, prompt="box", negatives=wanted))
    assert (dataset[SampleRequest(0, 0)].point_labels == PointLabel.NEGATIVE).any() == wanted
