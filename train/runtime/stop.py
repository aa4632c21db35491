"""Stop between steps: after SIGTERM from a scheduler or Ctrl-C from a user, finish the step and save the run."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


class StopRequest:
    """Whether a signal asked the run to stop.

    Attributes:
        by: Name of the signal; empty before one arrives.
    """

    def __init__(self) -> None:
        self.by = ""

    def __bool__(self) -> bool:
        return bool(self.by)

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal. A second Ctrl-C ends the program at once."""
        if self.by and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.by = signal.Signals(number).name
        logger.warning("%s: the run stops after this step and is saved", self.by)


@contextmanager
def finish_before_interrupt() -> Generator[None]:
    """Let a block end before a Ctrl-C takes effect, so that a file is either complete or unchanged."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[FrameType | None] = []
    before = signal.signal(signal.SIGINT, lambda _, frame: arrived.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if arrived and callable(before):
        before(signal.SIGINT, arrived[0])


@contextmanager
def stop_on_signals() -> Generator[StopRequest]:
    """Handle SIGTERM and SIGINT during a run. Python allows this only in the main thread; in others it does nothing.

    A nested block sees the signals of the outer block and passes its own on.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    outer = getattr(before[signal.SIGTERM], "__self__", None)
    if isinstance(outer, StopRequest):
        request.by = request.by or outer.by
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if isinstance(outer, StopRequest):
            outer.by = outer.by or request.by
