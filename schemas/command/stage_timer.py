"""Measure how long each stage of a command takes; nearly free unless the times are collected."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from schemas.command.json_log import FIELDS

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


@dataclass
class Timings:
    """Time and number of calls of each stage.

    Attributes:
        seconds: Seconds by stage, in the order of first use.
        calls: How often each stage was entered.
    """

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    calls: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, name: str, seconds: float, calls: int = 1) -> None:
        """Add the time of a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.calls[name] = self.calls.get(name, 0) + calls

    @contextmanager
    def measured(self, name: str) -> Generator[None]:
        """Measure the `with` block as a stage, even if it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)


_collected: ContextVar[Timings | None] = ContextVar("timings", default=None)


def timed(name: str) -> AbstractContextManager[None]:
    """Measure the `with` block as a stage, if times are collected. Stages do not nest."""
    timings = _collected.get()
    return nullcontext() if timings is None else timings.measured(name)


@contextmanager
def collect_timings() -> Generator[Timings]:
    """Collect the times of all stages in the `with` block."""
    timings = Timings()
    token = _collected.set(timings)
    try:
        yield timings
    finally:
        _collected.reset(token)


@contextmanager
def logged_timings() -> Generator[None]:
    """Collect the times of all stages in the `with` block, and log them at DEBUG level, one line per stage."""
    start = time.perf_counter()
    with collect_timings() as timings:
        try:
            yield
        finally:
            wall_s = time.perf_counter() - start
            width = max(map(len, [*timings.seconds, "wall time"]))
            for name, seconds in timings.seconds.items():
                row = {"stage": name, "seconds": round(seconds, 6), "calls": timings.calls[name]}
                line = f"{name:{width}} {seconds:9.3f} s {seconds / wall_s:5.0%} {row['calls']:7d} x"
                logger.debug(line, extra={FIELDS: row})
            # The time of a stage is summed over all processes, so it may exceed the wall time.
            row = {"stage": "wall time", "seconds": round(wall_s, 6)}
            logger.debug("%-*s %9.3f s", width, "wall time", wall_s, extra={FIELDS: row})


@dataclass(frozen=True)
class TimedTask(Generic[_Task, _Result]):
    """A function for another process that returns the times of its stages with its result."""

    function: Callable[[_Task], _Result]

    def __call__(self, task: _Task) -> tuple[_Result, Timings]:
        """Apply the function and collect the times of its stages."""
        with collect_timings() as timings:
            result = self.function(task)
        return result, timings


def is_collecting() -> bool:
    """Whether times are collected."""
    return _collected.get() is not None


def add_timings(found: Timings) -> None:
    """Add the times that another process collected."""
    timings = _collected.get()
    if timings is not None:
        for name, seconds in found.seconds.items():
            timings.add(name, seconds, found.calls[name])
