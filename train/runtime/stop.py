"""Stopping between steps: a scheduler's SIGTERM or a person's Ctrl-C lets the step end and the run be saved."""

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
        by: The signal's name, empty before one came.
    """

    def __init__(self) -> None:
        self.by = ""

    def __bool__(self) -> bool:
        return bool(self.by)

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal; a second Ctrl-C ends the program at once."""
        if self.by and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.by = signal.Signals(number).name
        logger.warning("%s: the run ends and is saved after this step", self.by)


@contextmanager
def stop_on_signals() -> Generator[StopRequest]:
    """Take SIGTERM and SIGINT for as long as a run goes on; only the main thread of a program can."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
