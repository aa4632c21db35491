"""Objects that windows cut come back whole, and none comes twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from train.predict import search as search_module
from train.predict.automatic import AutomaticOptions, CandidateCounts
from train.predict.seams import SeamJoiner
from train.predict.search import starts
from train.results.found_object import FoundObject
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid

WIDTH, HEIGHT, SIDE = 200, 150, 64


def _ellipses(seed: int) -> NDArray[np.int32]:
    """Numbered ellipses that keep apart."""
    generator = np.random.default_rng(seed)
    numbers = np.zeros((HEIGHT, WIDTH), np.int32)
    for number in range(1, 12):
        one = np.zeros((HEIGHT, WIDTH), np.uint8)
        center = int(generator.integers(0, WIDTH)), int(generator.integers(0, HEIGHT))
        axes = int(generator.integers(4, 50)), int(generator.integers(4, 50))
        cv2.ellipse(one, center, axes, 0, 0, 360, 1, -1)
        if not (numbers[cv2.dilate(one, np.ones((5, 5), np.uint8)) > 0]).any():
            numbers[one > 0] = number
    return numbers


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.5]))
def test_cut_objects_are_joined_and_found_once(seed: int, overlap: float) -> None:
    numbers = _ellipses(seed)
    joiner = SeamJoiner((WIDTH, HEIGHT))
    found: list[FoundObject] = []
    tops = starts(HEIGHT, SIDE, overlap)
    for row, top in enumerate(tops):
        for left in starts(WIDTH, SIDE, overlap):
            window = numbers[top : top + SIDE, left : left + SIDE]
            objects = [
                FoundObject.from_mask(window == number, (left, top), 0.9, 1.0) for number in np.unique(window) if number
            ]
            box = (left, top, left + window.shape[1], top + window.shape[0])
            joiner.add(box, [item for item in objects if item is not None])
        if row + 1 < len(tops):
            found += joiner.finished_above(tops[row + 1])
    found += joiner.close()
    assert len(found) == len(np.unique(numbers)) - 1
    for item in found:
        whole = item.within((0, 0, WIDTH, HEIGHT))
        (number,) = np.unique(numbers[whole])
        np.testing.assert_array_equal(whole, numbers == number)


def test_of_two_masks_of_one_object_the_better_stays() -> None:
    mask = np.zeros((64, 64), bool)
    mask[10:50, 10:50] = True
    other = mask.copy()
    other[10:12] = False
    worse, better = (FoundObject.from_mask(m, (0, 0), iou, 1.0) for m, iou in ((mask, 0.5), (other, 0.8)))
    assert worse is not None
    assert better is not None
    joiner = SeamJoiner((64, 64))
    # The same place, seen by windows that do not overlap there, cannot be joined.
    joiner.add((0, 0, 64, 5), [worse])
    joiner.add((0, 5, 64, 64), [better])
    (kept,) = joiner.close()
    assert kept.iou == 0.8
    assert kept.area_px == better.area_px


def test_stray_pixels_make_no_second_object() -> None:
    mask = np.zeros((64, 64), bool)
    mask[10:30, 10:30] = True
    stray = mask.copy()
    stray[60, 60] = True
    part = mask.copy()
    part[10:30, 20:30] = False
    objects = [FoundObject.from_mask(m, (0, 0), iou, 1.0) for m, iou in ((stray, 0.7), (mask, 0.9), (part, 0.8))]
    joiner = SeamJoiner((64, 64))
    joiner.add((0, 0, 64, 64), [item for item in objects if item is not None])
    # Half of an object is another object, as SAM 2 gives parts; the largest comes first.
    assert [(item.area_px, item.iou) for item in joiner.close()] == [(400, 0.9), (200, 0.8)]


def test_mask_that_lies_in_a_better_one_and_is_more_than_half_of_it_is_a_duplicate() -> None:
    better, part = _strip(10, 60), _strip(10, 37)
    (kept,) = _joined([(0, better, 0.9), (0, part, 0.8)])
    assert kept.area_px == 50 * 20
    # A quarter of an object is another object.
    assert len(_joined([(0, better, 0.9), (0, _strip(20, 33), 0.8)])) == 2


@pytest.mark.parametrize(("inside_px", "kept"), [(13, 1), (10, 2)])
def test_whole_mask_replaces_a_cut_one_of_which_six_tenths_lie_inside_it(inside_px: int, kept: int) -> None:
    # The windows share the columns 48 to 63. The second one sees the whole mask, and the first one a cut part of it.
    cut = np.zeros((64, 112), bool)
    cut[20:40, 64 - inside_px : 64] = True
    cut[20:40, 44 : 64 - inside_px] = inside_px == 10
    whole = _strip(64 - inside_px, 90)
    assert len(_joined([(0, cut, 0.9), (48, whole, 0.8)])) == kept


def _joined(windows: list[tuple[int, NDArray[np.bool_], float]]) -> list[FoundObject]:
    """Add masks of a strip of 112 x 64 px, each cut to a window of 64 px and with an IoU estimate."""
    joiner = SeamJoiner((112, 64))
    for left in dict.fromkeys(left for left, _, _ in windows):
        here = [
            FoundObject.from_mask(mask[:, left : left + 64], (left, 0), iou, 1.0)
            for at, mask, iou in windows
            if at == left
        ]
        joiner.add((left, 0, left + 64, 64), [item for item in here if item is not None])
    return joiner.close()


def _strip(left: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((64, 112), bool)
    mask[20:40, left:right] = True
    return mask


@pytest.mark.parametrize("first", [0, 48])
def test_whole_object_is_not_extended_by_a_cut_one(first: int) -> None:
    # The window at 48 shows the object as a whole. The one at 0 cuts it, and adds stray pixels of its neighbor.
    cut = _strip(52, 64)
    cut[:12, 56:60] = True
    windows = [(0, cut, 0.97), (48, _strip(52, 80), 0.9)]
    (kept,) = _joined(windows if first == 0 else windows[::-1])
    np.testing.assert_array_equal(kept.within((0, 0, 112, 64)), _strip(52, 80))
    assert kept.iou == 0.9


def test_cut_object_larger_than_the_whole_part_of_it_stays() -> None:
    # A part of an object can be whole in one window; that must not remove the object, which another window cuts.
    found = _joined([(0, _strip(10, 64), 0.9), (48, _strip(52, 80), 0.8)])
    assert [(item.box[0], item.box[2]) for item in found] == [(10, 64), (52, 80)]


def test_of_two_whole_masks_of_one_object_the_better_stays() -> None:
    worse = _strip(52, 60)
    worse[40:44, 52:60] = True
    (kept,) = _joined([(0, worse, 0.8), (48, _strip(52, 60), 0.9)])
    np.testing.assert_array_equal(kept.within((0, 0, 112, 64)), _strip(52, 60))


@pytest.mark.parametrize(("large", "small", "kept"), [(0.8, 0.9, [(10, 60), (51, 60)]), (0.9, 0.8, [(10, 60)])])
def test_a_better_part_never_removes_the_whole_object(large: float, small: float, kept: list[tuple[int, int]]) -> None:
    # The window at 48 sees the end of the object alone, and not near its own edge: both masks count as whole.
    found = _joined([(0, _strip(10, 60), large), (48, _strip(51, 60), small)])
    assert [(item.box[0], item.box[2]) for item in found] == kept


def test_only_the_best_of_several_cut_masks_is_joined() -> None:
    # A window may give an object alone and together with its neighbor. Joining both would give the wrong one.
    both = _strip(40, 64)
    both[0:20, 30:56] = True
    right = _strip(40, 100)
    found = _joined([(0, both, 0.95), (0, _strip(40, 64), 0.9), (48, right, 0.9)])
    assert any(np.array_equal(item.within((0, 0, 112, 64)), right) for item in found)


def test_nearly_whole_masks_are_found_once() -> None:
    # Both have an IoU of 0.7 or more with an object of 50 px by 20 px, so the object would be found twice.
    objects = [FoundObject.from_mask(_strip(20, right), (0, 0), iou, 1.0) for right, iou in ((74, 0.9), (56, 0.8))]
    joiner = SeamJoiner((112, 64))
    joiner.add((0, 0, 112, 64), [item for item in objects if item is not None])
    assert [item.iou for item in joiner.close()] == [0.9]


@pytest.mark.parametrize(("overlap", "kept"), [(True, 1), (False, 2)])
def test_a_cut_mask_that_the_next_window_does_not_have_is_left_out(overlap: bool, kept: int) -> None:
    # The first one touches the edge of the image only, so it is whole; the second one is cut by its window.
    at_image_edge, cut = _strip(0, 30), np.zeros((64, 112), bool)
    cut[50:60, 30:64] = True
    objects = [FoundObject.from_mask(mask[:, :64], (0, 0), 0.9, 1.0) for mask in (at_image_edge, cut)]
    joiner = SeamJoiner((112, 64), windows_overlap=overlap)
    joiner.add((0, 0, 64, 64), [item for item in objects if item is not None])
    joiner.add((48, 0, 112, 64), [])
    found = joiner.close()
    assert len(found) == kept
    assert (0, 20, 30, 40) in [item.box for item in found]


def test_parts_of_an_object_that_is_too_long_to_be_joined_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.predict.seams.MAX_SIDE_PX", 80)
    found = _joined([(0, _strip(10, 64), 0.9), (48, _strip(48, 100), 0.8)])
    assert [(item.box[0], item.box[2]) for item in found] == [(10, 64), (48, 100)]


def test_small_parts_of_a_large_object_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # Scale 2: the strip has 80 x 20 px, 1,600 px of the grid and 6,400 px of level 0, and no window shows as much.
    masks = [_strip(16, 96), np.zeros((64, 112), bool)]
    masks[1][50:60, 30:40] = True

    def cut(_: object, __: object, side: int, origin_xy: tuple[int, int], ___: object) -> Any:
        left, top = origin_xy
        parts = [
            FoundObject.from_mask(mask[top : top + side, left : left + side], origin_xy, 0.9, 1.0) for mask in masks
        ]
        return [part for part in parts if part is not None], CandidateCounts()

    monkeypatch.setattr(search_module, "find_all", cut)
    grid = WorkingGrid.of(Picture(np.zeros((128, 224, 3), np.uint8), mpp_um=0.25), 0.5)
    predictor: Any = SimpleNamespace(views=lambda pixels, all_eight: [])
    found = list(search_module.search(predictor, grid, 64, AutomaticOptions(min_area_px=6400)))
    assert [item.area_px for item in found] == [1600]
    assert len(list(search_module.search(predictor, grid, 64, AutomaticOptions(min_area_px=6401)))) == 0
    assert len(list(search_module.search(predictor, grid, 64, AutomaticOptions(min_area_px=400)))) == 2


@pytest.mark.parametrize("is_slide", [True, False])
def test_windows_without_tissue_are_skipped_on_slides_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_slide: bool
) -> None:
    pixels = np.full((64, 320, 3), 245, np.uint8)
    pixels[20:50, 200:300] = (180, 60, 140)
    source = Picture(pixels)
    source.is_slide = is_slide
    searched: list[int] = []
    monkeypatch.setattr(
        search_module, "find_all", lambda *given: searched.append(given[3][0]) or ([], CandidateCounts())
    )
    predictor: Any = SimpleNamespace(views=lambda pixels, all_eight: [])
    caplog.set_level("INFO")
    assert list(search_module.search(predictor, WorkingGrid.of(source), 64, AutomaticOptions())) == []
    assert searched == ([144, 192, 240, 256] if is_slide else [0, 48, 96, 144, 192, 240, 256])
    assert caplog.messages == ["image: windows without tissue, which are not searched: 3"] * is_slide


def test_windows_cover_an_axis_and_end_with_it() -> None:
    assert starts(100, 64, 0.25) == [0, 36]
    assert starts(64, 64, 0.25) == [0]
    assert starts(30, 64, 0.25) == [0]
    assert starts(200, 64, 0.25) == [0, 48, 96, 136]
