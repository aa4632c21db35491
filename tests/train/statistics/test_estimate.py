"""Means and intervals against scipy, written-out formulas, and simulations with known truth."""

import numpy as np
import pytest
from scipy import stats

from train.statistics.estimate import Estimate, class_mean, object_mean, patient_mean


def _patients(count: int, objects: int = 1) -> np.ndarray:
    return np.repeat([f"p{number}" for number in range(count)], objects)


def test_one_object_a_patient_is_the_interval_of_a_t_test() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 7)
    ends = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    tested = stats.ttest_1samp(values, 0.5)
    one_class = np.ones(7, np.int64)
    for estimate in (
        object_mean(values, _patients(7)),
        patient_mean(values, _patients(7)),
        class_mean(values, _patients(7), one_class),
    ):
        assert estimate.value == pytest.approx(values.mean())
        assert estimate.interval() == pytest.approx(ends)
    assert object_mean(values - 0.5, _patients(7)).p_value() == pytest.approx(tested[1])


def test_the_patient_mean_counts_each_patient_alike() -> None:
    values, patients = np.array([0.0, 0.2, 0.4, 1.0]), np.array(["a", "a", "a", "b"])
    assert patient_mean(values, patients).value == pytest.approx(0.6)
    assert object_mean(values, patients).value == pytest.approx(0.4)


def test_the_error_of_the_object_mean_is_the_published_formula() -> None:
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 20, 6)
    patients = np.repeat(np.array(list("abcdef")), sizes)
    values = generator.random(len(patients))
    ratio = values.mean()
    sums = np.array([values[patients == name].sum() for name in "abcdef"])
    expected = np.sqrt(6 / 5 * ((sums - ratio * sizes) ** 2).sum()) / sizes.sum()
    assert object_mean(values, patients).error == pytest.approx(expected)


def test_the_class_mean_and_its_error_by_hand() -> None:
    # Class 1 has patients a (mean 0.2) and b (0.6); class 2 has a (0.5), b (0.7) and c (0.9).
    values = np.array([0.1, 0.3, 0.6, 0.5, 0.7, 0.9])
    patients = np.array(["a", "a", "b", "a", "b", "c"])
    classes = np.array([1, 1, 1, 2, 2, 2])
    estimate = class_mean(values, patients, classes)
    assert estimate.value == pytest.approx((0.4 + 0.7) / 2)
    first, second = np.sqrt(2) / 2 / 2, np.sqrt(3 / 2) / 3 / 2
    parts = [-0.2 * first - 0.2 * second, 0.2 * first, 0.2 * second]
    assert estimate.error == pytest.approx(np.sqrt(np.square(parts).sum()))
    assert (estimate.fewest, estimate.patients, estimate.objects) == (2, 3, 6)
    reach = stats.t.ppf(0.975, 1) * estimate.error
    assert estimate.interval() == pytest.approx((0.55 - reach, 0.55 + reach))


def test_a_class_with_one_patient_leaves_no_interval() -> None:
    estimate = class_mean(np.array([0.2, 0.4, 0.6]), np.array(["a", "b", "b"]), np.array([1, 1, 2]))
    assert estimate.value == pytest.approx((0.3 + 0.6) / 2)
    assert (estimate.error, estimate.interval(), estimate.p_value(), estimate.fewest) == (None, None, None, 1)


@pytest.mark.parametrize("mean", [object_mean, patient_mean])
def test_one_patient_or_none_gives_no_interval(mean) -> None:
    assert mean(np.array([0.1, 0.9]), np.array(["a", "a"])).interval() is None
    assert mean(np.array([0.1, np.nan]), np.array(["a", "b"])).interval() is None
    assert mean(np.array([np.nan]), np.array(["a"])).objects == 0


def test_what_was_not_measured_is_left_out() -> None:
    values, patients, classes = np.array([0.1, 0.5, 0.9, np.nan]), np.array(list("abcd")), np.array([1, 1, 1, 2])
    assert class_mean(values, patients, classes) == class_mean(values[:3], patients[:3], classes[:3])


def test_the_order_of_objects_does_not_matter() -> None:
    generator = np.random.default_rng(3)
    values, patients, classes = generator.random(40), generator.choice(list("abcde"), 40), generator.integers(1, 4, 40)
    order = generator.permutation(40)
    found, other = (class_mean(values[o], patients[o], classes[o]) for o in (slice(None), order))
    assert found.value == pytest.approx(other.value)
    assert found.error == pytest.approx(other.error)


def test_few_patients_are_said_and_ends_stay_between_0_and_1() -> None:
    wide = Estimate(0.9, 0.2, 10, 3, 3)
    assert wide.as_json()["few_patients"] is True
    assert wide.share_interval() == pytest.approx((0.9 - stats.t.ppf(0.975, 2) * 0.2, 1.0))
    assert Estimate(0.9, 0.2, 10, 5, 5).as_json()["few_patients"] is False


def test_differences_without_any_spread_are_certain() -> None:
    patients = _patients(3)
    assert object_mean(np.full(3, 0.1), patients).p_value() == pytest.approx(0, abs=1e-6)
    assert object_mean(np.zeros(3), patients).p_value() == 1


@pytest.mark.parametrize("count", [3, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(count: int) -> None:
    from benchmarks.coverage import coverage

    found = coverage(count, draws=400, seed=11)
    assert 0.92 <= found["class mean"] <= 0.99
    assert 0.92 <= found["patient mean"] <= 0.98
    if count == 3:
        assert found["bootstrap of objects"] < 0.85
