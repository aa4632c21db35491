import numpy as np
import pytest
from scipy import stats

from train.statistics.estimate import class_mean
from train.statistics.institutions import leave_one_out


def test_of_one_patient_each_it_is_the_t_interval_of_their_mean() -> None:
    # For a plain mean, the jackknife's standard error is that of the sample.
    values = np.array([0.5, 0.6, 0.8, 0.9])
    names = np.array(["a", "b", "c", "d"])
    found = leave_one_out(values, names, np.ones(4, np.int64), names)
    assert found
    ends = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert found["ci95"] == pytest.approx((max(ends[0], 0), min(ends[1], 1)))
    assert found["without"] == pytest.approx({"a": 2.3 / 3, "b": 2.2 / 3, "c": 2.0 / 3, "d": 1.9 / 3})


def test_a_class_of_one_institution_gives_no_interval() -> None:
    values, classes = np.array([0.5, 0.6, 0.8]), np.array([1, 1, 2])
    names = np.array(["a", "b", "a"])
    found = leave_one_out(values, names, classes, names)
    assert found
    assert found["ci95"] is None
    assert found["without"]["a"] == 0.6
    assert found["without"]["b"] == class_mean(values[[0, 2]], names[[0, 2]], classes[[0, 2]]).value


def test_one_institution_says_nothing() -> None:
    one = np.array(["a", "a"])
    assert leave_one_out(np.array([0.5, 0.6]), one, np.ones(2, np.int64), one) is None
