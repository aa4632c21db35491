from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prep.derive.components import find_components
from prep.derive.segments import Segment, component_segments, label_segments
from prep.derive.tiles import cut_tiles
from schemas.bits import pack_mask

# SciPy's type hints do not tell which of its results a call returns.
ndimage: Any = scipy.ndimage

LABELS = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 3))
EIGHT = np.ones((3, 3))


def _tiles(labels: np.ndarray):
    return cut_tiles(np.zeros((*labels.shape, 3), np.uint8), labels, 16, 16)


@given(LABELS)
def test_label_segments_partition_the_selected_labels(labels: np.ndarray) -> None:
    for tile in _tiles(labels):
        segments = label_segments(tile, tile.labels, frozenset({0, 2, 3}), min_area_px=1)
        union = np.zeros((16, 16), int)
        for segment in segments:
            np.testing.assert_array_equal(segment.mask, (tile.labels == segment.object_id) & tile.inside)
            union += segment.mask
            _check_measures(segment)
        np.testing.assert_array_equal(union, np.isin(tile.labels, [0, 2, 3]) & tile.inside)


@given(LABELS)
def test_component_segments_equal_those_of_scipy(labels: np.ndarray) -> None:
    components = find_components(labels, frozenset({1, 2, 3}))
    of_pixels = components.numbered()
    for tile in _tiles(labels):
        segments = component_segments(tile, tile.labels, frozenset({1, 2, 3}), 1, components)
        assert [segment.object_id for segment in segments] == list(range(1, len(segments) + 1))
        assert len(segments) == sum(ndimage.label(tile.labels == code, EIGHT)[1] for code in (1, 2, 3))
        for segment in segments:
            assert ndimage.label(segment.mask, EIGHT)[1] == 1
            _check_measures(segment)
            x, y = tile.origin_xy
            ys, xs = np.nonzero(segment.mask)
            assert set(of_pixels[ys + y, xs + x]) == {segment.roi_component}


def _check_measures(segment) -> None:
    ys, xs = np.nonzero(segment.mask)
    assert segment.area_px == len(xs)
    assert segment.box_xyxy == (xs.min(), ys.min(), xs.max(), ys.max())
    assert segment.touches_edge == bool((np.array([xs, ys]) == 0).any() or (np.array([xs, ys]) == 15).any())


def test_small_components_are_left_out() -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[0, 0] = 1
    labels[4:8, 4:8] = 1
    (tile,) = _tiles(labels)
    found = component_segments(tile, tile.labels, frozenset({1}), 4, find_components(labels, frozenset({1})))
    assert [(segment.area_px, segment.object_id, segment.roi_component) for segment in found] == [(16, 1, 2)]


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (7, 1, 8, 3), (8, 0, 15, 7), (3, 2, 21, 5), (5, 5, 31, 23)])
def test_mask_is_packed_like_the_mask_of_the_whole_tile(box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    crop = np.random.default_rng(0).random((bottom - top + 1, right - left + 1)) < 0.6
    segment = Segment(crop, (24, 32), 1, 1, 0, box, int(crop.sum()))
    np.testing.assert_array_equal(segment.packed, pack_mask(segment.mask))
