import numpy as np
import pytest

from train.statistics.click_counts import IOU_GOALS, clicks_needed, summarize_clicks

# Good at once, after two clicks, and never; the last one is good in between alone.
IOU = np.array([[0.9, 0.95, 0.95], [0.5, 0.7, 0.86], [0.1, 0.2, 0.3], [0.5, 0.82, 0.7]])
PATIENTS = np.array(["a", "a", "b", "c"])


def test_clicks_are_counted_until_the_goal_is_first_reached() -> None:
    assert clicks_needed(IOU, 80).tolist() == [0, 2, -1, 1]
    assert clicks_needed(IOU, 85).tolist() == [0, 2, -1, -1]
    assert clicks_needed(IOU, 90).tolist() == [0, -1, -1, -1]


def test_failures_count_with_the_cap() -> None:
    found = summarize_clicks(IOU, PATIENTS)
    assert found["cap"] == 2
    assert found["noc"]["80"]["value"] == pytest.approx((0 + 2 + 2 + 1) / 4)
    assert found["failures"]["80"]["value"] == pytest.approx(1 / 4)
    assert found["failures"]["90"]["value"] == pytest.approx(3 / 4)
    assert found["iou_after"]["1"]["value"] == pytest.approx((0.95 + 0.7 + 0.2 + 0.82) / 4)
    assert list(found["iou_after"]) == ["1"]
    low, high = found["noc"]["80"]["ci95"]
    assert low < found["noc"]["80"]["value"] < high


def test_the_cap_is_twenty_clicks() -> None:
    late = np.zeros((2, 31))
    late[0, 21:] = 1
    late[1, 20:] = 1
    assert clicks_needed(late, 90).tolist() == [-1, 20]
    assert summarize_clicks(late, np.array(["a", "b"]))["cap"] == 20


def test_a_goal_that_is_exactly_reached_counts() -> None:
    for percent in IOU_GOALS:
        for pixels in range(20, 2020, 20):
            # An IoU comes from a Dice, and the quotient may be rounded down.
            dice = 2 * (pixels * percent / 100) / (pixels + pixels * percent / 100)
            assert clicks_needed(np.array([[dice / (2 - dice)]]), percent).tolist() == [0]
            assert clicks_needed(np.array([[percent / 100 - 1e-6]]), percent).tolist() == [-1]
