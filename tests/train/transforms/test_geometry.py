"""Every transform is held to the same promises on images that are not square and segments of any shape."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.strategies import samples
from train.transforms.affine import Affine, apply_affine
from train.transforms.geometry import (
    crop,
    mask_box,
    nearest_centers,
    orient,
    random_orientation,
    resize,
    scale_points,
)
from train.transforms.orientation import Orientation
from train.transforms.sample import Sample


def flip_horizontal(sample: Sample) -> Sample:
    return orient(sample, Orientation(0, mirrored=True))


def flip_vertical(sample: Sample) -> Sample:
    return orient(sample, Orientation(2, mirrored=True))


def quarter_turn(sample: Sample) -> Sample:
    return orient(sample, Orientation(1))


def _window(width: int, height: int) -> tuple[int, int, int, int]:
    """A window that stays inside however small the image has become."""
    left, top = min(2, width - 1), min(1, height - 1)
    return left, top, max(width - left - 3, 1), max(height - top - 2, 1)


STEPS: dict[str, Callable[[Sample], Sample]] = {
    "flip_horizontal": flip_horizontal,
    "flip_vertical": flip_vertical,
    "quarter_turn": quarter_turn,
    "shrink": lambda sample: resize(sample, 21, 17),
    "grow": lambda sample: resize(sample, 50, 70),
    "crop": lambda sample: crop(sample, *_window(*sample.size_wh)),
    "turn": lambda sample: apply_affine(sample, Affine.around_center(*sample.size_wh, angle=0.4, scale=1.1, shear=0.1)),
    "shift": lambda sample: apply_affine(sample, Affine(torch.tensor([[1.0, 0, 3], [0, 1, -2]], dtype=torch.float64))),
}


@settings(max_examples=150, deadline=None)
@given(samples(), st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6))
def test_prompts_stay_true_through_any_composition(sample: Sample, names: list[str]) -> None:
    moved = sample
    for name in names:
        moved = STEPS[name](moved)
    width, height = moved.size_wh
    assert moved.segments.shape[1:] == moved.ignore.shape == (height, width)
    assert len(moved.object_ids) + moved.dropped == len(sample.object_ids)
    for segment, coords, labels in zip(moved.segments, moved.point_coords, moved.point_labels, strict=True):
        assert segment.any()
        pixels = coords.round().long()
        for (x, y), label in zip(pixels.tolist(), labels.tolist(), strict=True):
            assert 0 <= x < width
            assert 0 <= y < height
            if label == 1:
                assert segment[y, x]
            elif label == 0:
                assert not segment[y, x]
                assert not moved.ignore[y, x]
            elif label == -1:
                assert (x, y) == (0, 0)
        assert labels[:2].tolist() == [2, 3]
        # An object that had a click still has one.
        assert (labels == 1).any()
        assert (pixels[:2].flatten() - mask_box(segment)).abs().max() <= 1


@settings(max_examples=100, deadline=None)
@given(samples(), st.lists(st.sampled_from(["flip_horizontal", "flip_vertical", "quarter_turn"]), max_size=5))
def test_image_and_segment_stay_aligned_to_the_pixel(sample: Sample, names: list[str]) -> None:
    moved = sample
    for name in names:
        moved = STEPS[name](moved)
    assert torch.equal(moved.image[0] == 255, moved.segments[0])
    assert (moved.ignore & moved.segments.any(0)).sum() == 0


@given(samples(), st.integers(0, 3), st.integers(0, 3))
def test_cropped_image_and_segment_stay_aligned_to_the_pixel(sample: Sample, left: int, top: int) -> None:
    width, height = sample.size_wh
    moved = crop(sample, left, top, width - left - 1, height - top - 2)
    if moved.object_ids[:1].tolist() == [0]:
        assert torch.equal(moved.image[0] == 255, moved.segments[0])


@given(samples(), st.floats(-3, 3), st.floats(0.7, 1.5), st.floats(-0.3, 0.3))
def test_turned_image_and_segment_cover_each_other(sample: Sample, angle: float, scale: float, shear: float) -> None:
    moved = apply_affine(sample, Affine.around_center(*sample.size_wh, angle=angle, scale=scale, shear=shear))
    if moved.object_ids[:1].tolist() == [0]:
        # Bilinear and nearest take the same side wherever all four neighbors agree.
        assert moved.segments[0][moved.image[0] == 255].all()
        assert not moved.segments[0][(moved.image[0] == 0)].any()


@settings(deadline=None)
@given(samples(), st.integers(9, 60), st.integers(9, 60))
def test_resized_image_and_segment_cover_each_other(sample: Sample, width: int, height: int) -> None:
    moved = resize(sample, width, height)
    if moved.object_ids[:1].tolist() == [0]:
        # Where the smoothed picture is clearly inside or outside, the segment agrees.
        inside, outside = moved.image[0] > 250, moved.image[0] < 5
        if max(width / sample.size_wh[0], height / sample.size_wh[1]) >= 1:
            assert moved.segments[0][inside].float().mean().nan_to_num(1) == 1
            assert moved.segments[0][outside].float().mean().nan_to_num(0) == 0


@given(samples(), st.integers(0, 3), st.booleans())
def test_orient_is_rot90_and_flip(sample: Sample, turns: int, mirrored: bool) -> None:
    def plain(pixels: torch.Tensor) -> torch.Tensor:
        turned = pixels.rot90(turns, (-2, -1))
        return turned.flip(-1) if mirrored else turned

    noise = torch.randint(256, sample.image.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moved = orient(replace(sample, image=noise), Orientation(turns, mirrored))
    assert torch.equal(moved.image, plain(noise))
    assert torch.equal(moved.segments, plain(sample.segments))
    assert torch.equal(moved.ignore, plain(sample.ignore))
    steps = sample
    for _ in range(turns):
        steps = quarter_turn(steps)
    steps = flip_horizontal(steps) if mirrored else steps
    assert torch.equal(moved.point_coords, steps.point_coords)


@given(samples())
def test_four_turns_and_two_flips_give_the_sample_back(sample: Sample) -> None:
    turned = quarter_turn(quarter_turn(quarter_turn(quarter_turn(sample))))
    for other in (turned, flip_horizontal(flip_horizontal(sample)), flip_vertical(flip_vertical(sample))):
        assert torch.equal(other.image, sample.image)
        assert torch.equal(other.segments, sample.segments)
        assert torch.equal(other.point_coords, sample.point_coords)


def _one_pixel(width: int, height: int, x: int, y: int) -> Sample:
    segments = torch.zeros(1, height, width, dtype=torch.bool)
    segments[0, y, x] = True
    return Sample(
        tile_index=0,
        image=segments.to(torch.uint8).expand(3, -1, -1) * 255,
        segments=segments,
        ignore=torch.zeros(height, width, dtype=torch.bool),
        point_coords=torch.tensor([[[x, y]]], dtype=torch.float32),
        point_labels=torch.ones(1, 1, dtype=torch.int32),
        object_ids=torch.ones(1, dtype=torch.int64),
        class_ids=torch.ones(1, dtype=torch.int64),
    )


@pytest.mark.parametrize(
    ("step", "expected"),
    [("flip_horizontal", (6, 1)), ("flip_vertical", (3, 3)), ("quarter_turn", (1, 6))],
)
def test_point_of_a_pixel_moves_by_its_index(step: str, expected: tuple[int, int]) -> None:
    moved = STEPS[step](_one_pixel(10, 5, 3, 1))
    assert tuple(moved.point_coords[0, 0].int().tolist()) == expected
    assert moved.segments[0, expected[1], expected[0]]


def test_width_scales_x_and_height_scales_y() -> None:
    moved = scale_points(torch.tensor([[9.0, 4.0]]), (10, 5), (40, 5))
    assert moved.tolist() == [[37.5, 4.0]]


def test_lost_object_is_dropped_and_counted() -> None:
    shrunk = resize(_one_pixel(40, 40, 1, 1), 10, 10)
    assert shrunk.dropped == 1
    assert shrunk.segments.shape == (0, 10, 10)


def test_negative_point_without_room_becomes_padding() -> None:
    sample = _one_pixel(8, 8, 0, 0)
    segments = torch.ones(1, 8, 8, dtype=torch.bool)
    segments[0, 0, 0] = False
    sample = replace(sample, segments=segments, point_labels=torch.zeros(1, 1, dtype=torch.int32))
    shrunk = resize(sample, 4, 4)
    assert shrunk.point_labels.tolist() == [[-1]]
    assert shrunk.point_coords.tolist() == [[[0, 0]]]


def test_all_eight_orientations_are_drawn() -> None:
    sample = _one_pixel(8, 8, 1, 0)
    generator = torch.Generator().manual_seed(0)
    seen = {tuple(random_orientation(sample, generator).point_coords[0, 0].int().tolist()) for _ in range(200)}
    assert len(seen) == 8


@pytest.mark.parametrize(("old", "new"), [(7, 3), (1024, 256), (3, 7), (5, 5)])
def test_nearest_center_is_the_pixel_under_it(old: int, new: int) -> None:
    expected = np.floor((np.arange(new) + 0.5) * old / new).astype(int)
    assert nearest_centers(old, new).tolist() == expected.tolist()


def test_affine_moves_pixels_and_points_alike() -> None:
    shift = Affine(torch.tensor([[1.0, 0, 3], [0, 1, -2]], dtype=torch.float64))
    moved = apply_affine(_one_pixel(20, 12, 4, 7), shift)
    assert moved.point_coords.tolist() == [[[7, 5]]]
    assert moved.segments[0].nonzero().tolist() == [[5, 7]]
    assert moved.image[0, 5, 7] == 255
    # What came from beyond the edge does not count.
    assert moved.ignore[:, :3].all()
    assert moved.ignore[-2:].all()
    assert not moved.ignore[:-2, 3:].any()


@given(st.floats(-3, 3), st.floats(0.5, 2), st.floats(-0.5, 0.5))
def test_affine_undone_is_nothing(angle: float, scale: float, shear: float) -> None:
    drawn = Affine.around_center(31, 17, angle=angle, scale=scale, shear=shear)
    places = torch.tensor([[0.0, 0.0], [30.0, 16.0], [4.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(drawn.inverse().apply(drawn.apply(places)), places)
    center = torch.tensor([15.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(drawn.apply(center), center)


def test_click_that_leaves_the_image_is_derived_anew() -> None:
    sample = _one_pixel(20, 20, 1, 1)
    sample.segments[0, 10:15, 10:15] = True
    cropped = crop(sample, 8, 8, 10, 10)
    assert cropped.point_labels.tolist() == [[1]]
    x, y = cropped.point_coords[0, 0].int().tolist()
    assert cropped.segments[0, y, x]


def test_object_cut_away_is_dropped_and_counted() -> None:
    assert crop(_one_pixel(20, 20, 1, 1), 8, 8, 10, 10).dropped == 1
