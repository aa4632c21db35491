import os
import signal

import pytest

from train.runtime.stop import finish_before_interrupt, stop_on_signals


def _write_and_interrupt(written: list[str]) -> None:
    with finish_before_interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        written.append("whole")


def test_interrupt_waits_for_the_end_of_the_block() -> None:
    written: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _write_and_interrupt(written)
    assert written == ["whole"]


def test_second_interrupt_of_a_run_ends_it_after_the_block() -> None:
    written: list[str] = []
    with stop_on_signals() as stop:
        _write_and_interrupt(written)
        assert stop.by == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            _write_and_interrupt(written)
    assert written == ["whole", "whole"]


def test_blocks_inside_each_other_know_of_the_same_signal() -> None:
    with stop_on_signals() as outer:
        with stop_on_signals() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert inner.by == outer.by == "SIGTERM"
        with stop_on_signals() as later:
            assert later.by == "SIGTERM"
