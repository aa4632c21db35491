"""Components found from runs equal those that OpenCV finds, class by class."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prep.derive.components import Components, find_components

LABELS = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 3))
CLASSES = st.frozensets(st.integers(0, 4))


def _plain(labels: np.ndarray, classes: frozenset[int]) -> np.ndarray:
    """Number the components of each class by OpenCV."""
    numbers, total = np.zeros(labels.shape, np.int32), 0
    for code in sorted(classes):
        is_class = labels == code
        found: Any = cv2.connectedComponents(is_class.view(np.uint8), connectivity=8)[1]
        numbers[is_class] = found[is_class] + total
        total += found.max()
    return numbers


def _check(labels: np.ndarray, classes: frozenset[int]) -> Components:
    components, plain = find_components(labels, classes), _plain(labels, classes)
    np.testing.assert_array_equal(components.numbered(), plain)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    np.testing.assert_array_equal(components.at(x, y), plain)
    assert len(components.codes) == plain.max()
    for index, code in enumerate(components.codes):
        ys, xs = np.nonzero(plain == index + 1)
        assert set(labels[ys, xs].tolist()) == {code}
        assert components.area_px[index] == len(xs)
        assert components.box_xyxy[index].tolist() == [xs.min(), ys.min(), xs.max(), ys.max()]
        assert components.first_xy[index].tolist() == [xs[0], ys[0]]
    return components


@given(LABELS, CLASSES)
@example(np.ones((4, 1), np.uint8), frozenset({1}))
def test_components_equal_those_of_opencv(labels: np.ndarray, classes: frozenset[int]) -> None:
    _check(labels, classes)
    _check(labels.astype(np.uint16) * 300, frozenset(code * 300 for code in classes))


@pytest.mark.parametrize("shape", [(96, 96), (95, 97)])
def test_long_bent_parts_are_one_component(shape: tuple[int, int]) -> None:
    ys, xs = np.indices(shape) - 48
    turn = np.arctan2(ys, xs) / (2 * np.pi)
    spiral = ((np.hypot(ys, xs) / 8 + turn) % 1 < 0.5).astype(np.uint8)
    _check(spiral, frozenset({0, 1}))
    comb = np.zeros(shape, np.uint8)
    comb[::2], comb[1::4, 0], comb[3::4, -1] = 1, 1, 1
    assert len(_check(comb, frozenset({1})).codes) == 1


def test_corners_join_pixels_and_row_ends_do_not() -> None:
    labels = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], np.uint8)
    assert find_components(labels, frozenset({1})).numbered().tolist() == [[0, 0, 2], [1, 0, 0], [0, 1, 0]]
