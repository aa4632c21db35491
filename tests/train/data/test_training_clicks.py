"""Simulated prompts: each click is where it must be, for every draw there is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.prompt_kinds import PointLabel
from tests.train.strategies import samples
from train.data.training_clicks import (
    TRUTH_CLICK_SHARE,
    correction_clicks,
    with_jittered_boxes,
    with_random_prompts,
)
from train.transforms.sample import Sample

SEEDS = st.integers(0, 10_000)


def _masks(seed: int, count: int = 4, height: int = 11, width: int = 17) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.rand(count, height, width, generator=generator) < 0.5
    targets = torch.rand(count, height, width, generator=generator) < 0.4
    valid = torch.rand(count, height, width, generator=generator) < 0.8
    return predicted, targets & valid, valid, torch.rand(count, 2, generator=generator)


def _click(predicted: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, draws: torch.Tensor):
    coords, labels = correction_clicks((predicted.float() - 0.5)[:, None], targets, valid, draws)
    assert coords.shape == (len(targets), 1, 2)
    assert labels.shape == (len(targets), 1)
    x, y = coords[:, 0].long().T
    return torch.arange(len(targets)), y, x, labels[:, 0].bool()


@given(SEEDS)
def test_click_is_on_the_error_and_says_which_side_it_is_on(seed: int) -> None:
    predicted, targets, valid, draws = _masks(seed)
    draws[:, 0] = TRUTH_CLICK_SHARE
    rows, y, x, positive = _click(predicted, targets, valid, draws)
    assert ((predicted != targets) & valid)[rows, y, x].all()
    assert torch.equal(positive, targets[rows, y, x])


@given(SEEDS)
def test_a_share_of_clicks_is_on_the_truth(seed: int) -> None:
    predicted, targets, valid, draws = _masks(seed)
    draws[:, 0] = 0.0
    rows, y, x, positive = _click(predicted, targets, valid, draws)
    assert targets[rows, y, x].all()
    assert positive.all()


def test_every_wrong_pixel_is_hit_by_some_draw() -> None:
    predicted, targets, valid, _ = _masks(3, count=1)
    wrong = ((predicted != targets) & valid)[0]
    hit = torch.zeros_like(wrong)
    for draw in torch.linspace(0, 0.999999, 4 * int(wrong.sum())):
        _, y, x, _ = _click(predicted, targets, valid, torch.stack([torch.tensor(0.5), draw])[None])
        hit[y, x] = True
    assert torch.equal(hit, wrong)


def test_a_mask_without_error_gets_a_click_on_background_or_else_on_the_object() -> None:
    _, targets, valid, draws = _masks(5)
    draws[:, 0] = 0.5
    rows, y, x, positive = _click(targets, targets, valid, draws)
    assert not positive.any()
    assert (~targets & valid)[rows, y, x].all()
    full = torch.ones_like(targets)
    *_, positive = _click(full, full, full, draws)
    assert positive.all()


def _sample(seed: int, objects: int) -> Sample:
    _, targets, _, _ = _masks(seed, count=objects, height=60, width=90)
    return Sample(
        tile_index=0,
        image=torch.zeros(3, 60, 90, dtype=torch.uint8),
        segments=targets,
        ignore=torch.zeros(60, 90, dtype=torch.bool),
        point_coords=torch.zeros(objects, 1, 2),
        point_labels=torch.ones(objects, 1, dtype=torch.int32),
        object_ids=torch.arange(objects),
        class_ids=torch.ones(objects, dtype=torch.int64),
    )


@given(SEEDS)
def test_random_prompt_is_a_click_on_the_segment_or_a_box_around_most_of_it(seed: int) -> None:
    sample = with_random_prompts(_sample(seed, 3), torch.Generator().manual_seed(seed))
    for segment, coords, labels in zip(sample.segments, sample.point_coords, sample.point_labels, strict=True):
        if labels.tolist() == [1]:
            x, y = coords[0].long()
            assert segment[y, x]
        else:
            assert labels.tolist() == [2, 3]
            (left, top), (right, bottom) = coords.tolist()
            # The segments fill the image of 90 x 60, so a side moves by at most 9 or 6 px, and only inwards.
            assert 0 <= left <= 9
            assert 80 <= right <= 89
            assert 0 <= top <= 6
            assert 53 <= bottom <= 59


def test_both_kinds_are_drawn_and_no_object_needs_no_prompt() -> None:
    kinds: set[tuple[int, ...]] = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        kinds.add(tuple(with_random_prompts(_sample(0, 1), generator).point_labels[0].tolist()))
        empty = with_random_prompts(_sample(0, 0), generator)
        assert empty.point_coords.shape[::2] == (0, 2)
    assert kinds == {(1,), (2, 3)}


@pytest.mark.parametrize(("side", "reach"), [(40, 4.0), (300, 20.0)])
def test_sides_of_a_box_move_both_ways_by_up_to_a_tenth_and_at_most_20_px(side: int, reach: float) -> None:
    objects, end = 32, 30 + side - 1
    segments = torch.zeros(objects, 360, 360, dtype=torch.bool)
    segments[:, 30 : end + 1, 30 : end + 1] = True
    sample = replace(_sample(0, objects), segments=segments)
    drawn = (with_random_prompts(sample, torch.Generator().manual_seed(seed)) for seed in range(20))
    corners = next(found.point_coords for found in drawn if found.point_labels.shape[1] == 2)
    moves = corners - torch.tensor([[30.0, 30.0], [end, end]])
    assert 0.9 * reach < moves.amax() <= reach
    assert -reach <= moves.amin() < -0.9 * reach


@given(samples(), st.floats(0.001, 0.5), SEEDS)
def test_jittered_box_stays_in_the_image_in_order_and_near_the_box(sample: Sample, share: float, seed: int) -> None:
    moved, again = (
        with_jittered_boxes(sample, share, torch.Generator().manual_seed(number)) for number in (seed, seed)
    )
    assert torch.equal(moved.point_coords, again.point_coords)
    assert torch.equal(moved.point_labels, sample.point_labels)
    assert torch.equal(moved.point_coords[:, 2:], sample.point_coords[:, 2:])
    (x0, y0), (x1, y1) = moved.point_coords[:, 0].T, moved.point_coords[:, 1].T
    width, height = sample.size_wh
    assert ((x0 >= 0) & (x0 <= x1) & (x1 <= width - 1)).all()
    assert ((y0 >= 0) & (y0 <= y1) & (y1 <= height - 1)).all()
    before = sample.point_coords[:, :2]
    lengths = before[:, 1] - before[:, 0] + 1
    moves = (moved.point_coords[:, :2] - before).abs()
    assert (moves <= share * lengths[:, None] + 1e-4).all()
    assert (sample.point_labels[:, :2] == torch.tensor([PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT])).all()


def test_sides_of_stored_boxes_move_both_ways_by_up_to_the_share() -> None:
    side, count = 40, 400
    corners = torch.tensor([[30.0, 30.0], [30.0 + side - 1, 30.0 + side - 1]])
    sample = _sample(0, count).with_prompts(
        corners.expand(count, 2, 2).clone(), torch.tensor([[2, 3]], dtype=torch.int32).expand(count, 2).clone()
    )
    sample = replace(sample, image=torch.zeros(3, 100, 100, dtype=torch.uint8))
    moves = with_jittered_boxes(sample, 0.025, torch.Generator().manual_seed(0)).point_coords - corners
    assert 0.98 < moves.amax() <= 1.0001
    assert -1.0001 <= moves.amin() < -0.98
    assert abs(float(moves.mean())) < 0.05
    assert len(np.unique(moves.numpy().round(4))) > count
