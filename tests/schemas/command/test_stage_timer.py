import time

import pytest

from schemas.command.stage_timer import TimedTask, add_timings, collect_timings, timed


def _sleep(seconds: float) -> float:
    with timed("sleep"):
        time.sleep(seconds)
    return seconds


def test_stages_are_summed_and_counted() -> None:
    with collect_timings() as timings:
        _sleep(0.01)
        _sleep(0.01)
    assert timings.calls == {"sleep": 2}
    assert 0.02 <= timings.seconds["sleep"] < 5


def test_failed_stage_is_counted() -> None:
    with collect_timings() as timings, pytest.raises(KeyError), timed("read"):
        raise KeyError
    assert timings.calls == {"read": 1}


def test_stage_times_of_another_process_are_added() -> None:
    result, found = TimedTask(_sleep)(0.0)
    assert result == 0.0
    with collect_timings() as timings:
        _sleep(0.0)
        add_timings(found)
    assert timings.calls == {"sleep": 2}


def test_nothing_is_measured_unless_times_are_collected() -> None:
    with collect_timings() as timings:
        pass
    _sleep(0.0)
    add_timings(TimedTask(_sleep)(0.0)[1])
    assert timings.calls == {}
    start = time.perf_counter()
    for _ in range(10_000):
        with timed("nothing"):
            pass
    assert time.perf_counter() - start < 0.5
