"""Outlines follow the edges of pixels: filling them gives the mask again."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from prep.annotation.shapes import Polygon, Shape
from train.predict.outline import outlines
from train.predict.vector_files import image_runs


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts = tuple(
        Polygon(part.outer.astype(float), tuple(hole.astype(float) for hole in part.holes)) for part in outlines(mask)
    )
    found = np.zeros(mask.shape, bool)
    if parts:
        window, pixels = Shape("x", parts).pixels(*mask.shape)
        found[window] = pixels
    return found


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_filled_outline_is_the_mask(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((13, 17)) < share
    np.testing.assert_array_equal(_filled(mask), mask)
    for part in outlines(mask):
        for ring in (part.outer, *part.holes):
            # A ring that touches itself is refused by programs that check geometry.
            assert len({tuple(point) for point in ring.tolist()}) == len(ring)


def test_holes_and_parts_are_told_apart() -> None:
    mask = np.zeros((9, 12), bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:5] = False
    mask[2:4, 9:11] = True
    first, second = outlines(mask)
    assert first.outer.tolist() == [[1, 1], [8, 1], [8, 8], [1, 8]]
    assert [sorted(hole.tolist()) for hole in first.holes] == [[[3, 3], [3, 5], [5, 3], [5, 5]]]
    assert second.outer.tolist() == [[9, 2], [11, 2], [11, 4], [9, 4]]
    assert second.holes == ()


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4), st.integers(3, 10))
def test_run_lengths_of_a_part_are_those_of_the_whole_image(seed: int, x: int, y: int, height: int) -> None:
    y = min(y, 10 - height)
    mask = np.random.default_rng(seed).random((height, 5)) < 0.8
    image = np.zeros((10, 9), np.uint8)
    image[y : y + height, x : x + 5] = mask
    expected: Any = coco_mask.encode(np.asfortranarray(image))
    assert image_runs(mask, x, y, 9, 10)["counts"] == expected["counts"].decode()
