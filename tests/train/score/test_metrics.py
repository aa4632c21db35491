import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from train.score.metrics import score_masks

MASKS = arrays(bool, (2, 6, 7))


@given(MASKS, MASKS, arrays(bool, (6, 7)))
def test_scores_are_those_of_the_definition(predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray) -> None:
    scores = score_masks(predicted, truth, ignore)
    for row in range(2):
        a = {tuple(p) for p in np.argwhere(predicted[row] & ~ignore)}
        b = {tuple(p) for p in np.argwhere(truth[row] & ~ignore)}
        assert scores.iou[row] == pytest.approx(len(a & b) / len(a | b) if a | b else 1)
        assert scores.dice[row] == pytest.approx(2 * len(a & b) / (len(a) + len(b)) if a or b else 1)


@given(MASKS, MASKS, st.integers(0, 5))
def test_ignored_pixels_do_not_count(predicted: np.ndarray, truth: np.ndarray, row: int) -> None:
    ignore = np.zeros((6, 7), bool)
    ignore[row] = True
    changed = predicted.copy()
    changed[:, row] ^= True
    np.testing.assert_array_equal(score_masks(predicted, truth, ignore).dice, score_masks(changed, truth, ignore).dice)
