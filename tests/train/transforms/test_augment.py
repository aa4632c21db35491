"""What is drawn for a sample: always from its generator, never at the price of an object."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train.strategies import samples
from train.transforms.augment import AugmentConfig, augment_geometry
from train.transforms.geometry import mask_box
from train.transforms.sample import Sample

ALL = AugmentConfig(rotate_deg=180, scale=0.5, shear_deg=20, crop=0.4)


@given(samples(), st.integers(0, 1000))
def test_prompts_stay_true_and_no_object_is_lost(sample: Sample, seed: int) -> None:
    result = augment_geometry(sample, ALL, torch.Generator().manual_seed(seed))
    assert torch.equal(result.object_ids, sample.object_ids)
    assert result.dropped == 0
    for segment, coords, labels in zip(result.segments, result.point_coords, result.point_labels, strict=True):
        assert segment.any()
        for label, (x, y) in zip(labels.tolist(), coords.round().long().tolist(), strict=True):
            if label in (0, 1):
                assert bool(segment[y, x]) == (label == 1)
                assert not (label == 0 and result.ignore[y, x])
        assert torch.equal(coords[(labels == 2) | (labels == 3)].reshape(-1), mask_box(segment).to(coords.dtype))


@given(samples(), st.integers(0, 1000))
def test_same_generator_same_sample(sample: Sample, seed: int) -> None:
    first, second = (augment_geometry(sample, ALL, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.point_coords, second.point_coords)


def _dot(x: int, y: int) -> Sample:
    segments = torch.zeros(1, 40, 40, dtype=torch.bool)
    segments[0, y, x] = True
    return Sample(
        tile_index=0,
        image=torch.zeros(3, 40, 40, dtype=torch.uint8),
        segments=segments,
        ignore=torch.zeros(40, 40, dtype=torch.bool),
        point_coords=torch.tensor([[[float(x), float(y)]]]),
        point_labels=torch.ones(1, 1, dtype=torch.int32),
        object_ids=torch.tensor([7]),
        class_ids=torch.tensor([1]),
    )


@pytest.mark.parametrize("place", [(0, 0), (39, 0), (20, 39)])
def test_map_that_would_lose_an_object_is_drawn_anew_and_at_last_left_out(place: tuple[int, int]) -> None:
    moved = AugmentConfig(orientation=False, rotate_deg=180, scale=0.5)
    turned = 0
    for seed in range(30):
        result = augment_geometry(_dot(*place), moved, torch.Generator().manual_seed(seed))
        assert result.segments.any()
        assert result.dropped == 0
        assert bool(result.ignore.any()) != bool(result.skipped)
        turned += bool(result.ignore.any())
    # A single pixel in a corner survives few turns, and some of them are found.
    assert 0 < turned < 30


def test_crop_is_at_least_its_share_of_each_side() -> None:
    sides = {
        augment_geometry(
            _dot(20, 20), AugmentConfig(orientation=False, crop=0.5), torch.Generator().manual_seed(seed)
        ).size_wh
        for seed in range(40)
    }
    assert min(sides) >= (20, 20)
    assert len(sides) > 5
