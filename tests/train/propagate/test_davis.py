"""J and F of masks whose values are known."""

import numpy as np
import pytest

from train.propagate.davis import outline_f, region_j

NOTHING = np.zeros((90, 120), bool)
"""The diagonal is 150 px, so outlines may be 1.2 px apart, which is rounded up to 2 px."""


def _square(left: int, top: int = 30, side: int = 20) -> np.ndarray:
    mask = NOTHING.copy()
    mask[top : top + side, left : left + side] = True
    return mask


def test_j_is_the_iou_over_the_pixels_that_count() -> None:
    assert region_j(_square(30), _square(40), NOTHING) == pytest.approx(1 / 3)
    assert region_j(_square(30), _square(40), _square(30)) == 0
    assert region_j(_square(30), _square(30), _square(0)) == 1


@pytest.mark.parametrize(("moved_px", "expected"), [(0, 1.0), (2, 1.0)])
def test_outlines_within_the_tolerance_are_equal(moved_px: int, expected: float) -> None:
    assert outline_f(_square(30 + moved_px), _square(30), NOTHING) == expected


def test_f_is_the_mean_of_precision_and_recall_of_the_outline() -> None:
    # Both outlines have 80 pixels. Moved by 3 px, the left and right sides do not match any more, except at their ends.
    moved = outline_f(_square(33), _square(30), NOTHING)
    assert 0.5 < moved < 0.8
    assert outline_f(_square(60), _square(30), NOTHING) == 0


def test_empty_masks() -> None:
    for measure in (region_j, outline_f):
        assert measure(NOTHING, NOTHING, NOTHING) == 1
        assert measure(_square(30), NOTHING, NOTHING) == 0
        assert measure(NOTHING, _square(30), NOTHING) == 0
