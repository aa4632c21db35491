import numpy as np
import pytest

from train.score.bootstrap import mean_interval


def test_a_constant_has_an_interval_of_no_width() -> None:
    patients = np.array(["a", "b", "b", "c"])
    assert mean_interval(np.full(4, 0.25), patients) == pytest.approx((0.25, 0.25))


def test_one_patient_gives_no_interval() -> None:
    assert mean_interval(np.array([0.1, 0.9]), np.array(["a", "a"])) is None
    assert mean_interval(np.array([0.1, np.nan]), np.array(["a", "b"])) is None
    assert mean_interval(np.array([]), np.array([], dtype=str)) is None


def test_two_patients_give_either_or_both() -> None:
    # The resamples aa, ab, ba and bb are equally likely, so the interval reaches both ends.
    assert mean_interval(np.array([0.0, 1.0, 1.0]), np.array(["a", "b", "b"])) == (0.0, 1.0)


def test_it_is_the_bootstrap_over_patients_and_not_over_objects() -> None:
    generator = np.random.default_rng(5)
    owner = np.repeat(np.arange(12), generator.integers(1, 30, 12))
    values = generator.normal(0.6, 0.15, 12)[owner] + generator.normal(0, 0.02, len(owner))
    means: list[float] = []
    for _ in range(4000):
        drawn = generator.integers(0, 12, 12)
        means.append(np.concatenate([values[owner == patient] for patient in drawn]).mean())
    expected = np.quantile(means, [0.025, 0.975])
    found = mean_interval(values, owner.astype(str))
    assert found == pytest.approx(expected, abs=0.01)
    over_objects = mean_interval(values, np.arange(len(values)).astype(str))
    assert found is not None
    assert over_objects is not None
    assert over_objects[1] - over_objects[0] < 0.5 * (found[1] - found[0])


def test_two_models_use_the_same_draws() -> None:
    generator = np.random.default_rng(0)
    patients = np.array(list("aabbccdde"))
    values = generator.random(9)
    low, high = mean_interval(values, patients) or (0, 0)
    # Adding a constant to every value moves the interval by it, and the order of objects does not matter.
    assert mean_interval(values + 0.125, patients) == pytest.approx((low + 0.125, high + 0.125))
    order = generator.permutation(9)
    assert mean_interval(values[order], patients[order]) == pytest.approx((low, high))


def test_what_was_not_measured_is_left_out() -> None:
    values, patients = np.array([0.1, 0.5, 0.9, np.nan]), np.array(["a", "b", "c", "d"])
    assert mean_interval(values, patients) == mean_interval(values[:3], patients[:3])
