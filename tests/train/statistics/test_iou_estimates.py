import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from train.statistics.iou_estimates import summarize_estimates

# Few values, so that many are equal.
VALUES = arrays(float, 12, elements=st.sampled_from([0.0, 0.15, 0.3, 0.55, 0.9, 1.0]))
PATIENTS = np.array(list("aaabbbbccccc"))


@given(VALUES, VALUES)
def test_rank_correlation_is_that_of_scipy(estimates: np.ndarray, ious: np.ndarray) -> None:
    found = summarize_estimates(estimates, ious, PATIENTS)["spearman"]
    if np.ptp(estimates) == 0 or np.ptp(ious) == 0:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(estimates, ious)[0])


@given(VALUES, VALUES)
def test_no_constant_is_better_than_the_best_one(estimates: np.ndarray, ious: np.ndarray) -> None:
    found = summarize_estimates(estimates, ious, PATIENTS)
    assert found["absolute_error"] == pytest.approx(np.abs(estimates - ious).mean())
    assert found["bias"] == pytest.approx((estimates - ious).mean())
    tried = [np.abs(ious - constant).mean() for constant in np.linspace(0, 1, 101)]
    assert found["constant_error"] <= min(tried) + 1e-9


def test_bins_hold_each_object_once() -> None:
    estimates = np.array([0.05, 0.07, 0.95, 1.0, 1.2, -0.1])
    ious = np.array([0.2, 0.4, 0.9, 0.8, 0.7, 0.0])
    low, high = summarize_estimates(estimates, ious, PATIENTS[:6])["reliability"]
    assert (low["n"], high["n"]) == (3, 3)
    assert (low["iou"], high["iou"]) == (pytest.approx(0.2), pytest.approx(0.8))
    assert low["estimate"] == pytest.approx(0.02 / 3)
