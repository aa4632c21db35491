"""Outlines follow the edges of pixels: filling them gives the mask again."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from prep.annotation.shapes import Polygon, Shape
from train.results.outline import outlines
from train.results.vector_files import image_runs


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


def test_run_lengths_of_large_images_are_those_of_pycocotools() -> None:
    # 60,000 x 60,000 px are fewer than 2^32, which is as many as pycocotools can count.
    mask = np.random.default_rng(0).random((300, 200)) < 0.7
    found = image_runs(mask, 50_000, 40_000, 60_000, 60_000)
    assert found["size"] == [60_000, 60_000]
    tools = cast("Any", coco_mask)
    as_read = {**found, "counts": found["counts"].encode()}
    assert tools.area(as_read) == np.count_nonzero(mask)
    assert tools.toBbox(as_read).tolist() == [50_000, 40_000, 200, 300]
    written = tools.frPyObjects({**found, "counts": _counts(found["counts"])}, 60_000, 60_000)
    assert written["counts"].decode() == found["counts"]


def test_run_lengths_of_images_above_4_gigapixels_are_exact() -> None:
    mask = np.array([[True, True], [True, False]])
    found = image_runs(mask, 70_000, 99_990, 100_000, 100_000)
    # The object starts after 70,000 columns of 100,000 px, and 2,999,800,009 px follow it.
    assert _counts(found["counts"]) == [7_000_099_990, 2, 99_998, 1, 2_999_800_009]


def _counts(text: str) -> list[int]:
    """Read COCO's text of run lengths character by character, as its description says."""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode():
        group = character - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (group & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
