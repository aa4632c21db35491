"""Run the tasks of a build in this process, in worker processes, or on a Dask cluster; results keep the task order."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event as EventType
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any, Protocol, TypeVar

from schemas.command.console import INTERRUPTED, own_formatter
from schemas.command.json_log import JsonFormatter
from schemas.command.stage_timer import TimedTask, add_timings, is_collecting
from schemas.errors import ConfigError, SourceError
from schemas.script_guard import GUARD_REMEDY, is_script

logger = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

DASK_LOCAL = "local"

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Cores that this process may use; a scheduler may give it fewer than the machine has."""

BYTES_PER_PROCESS = 8 << 20
"""Bytes of source files for each process. One takes 0.7 s to start; in that time one process builds 8 MB of JPEG files
or 24 MB of PNG files."""

DASK_TIMEOUT_S = 15
"""Seconds to wait for a scheduler."""

DASK_CHECK_EVERY_S = 10.0
"""Seconds without a result, after which the build asks the scheduler whether it has any workers."""

_CONNECTION_LOGGERS = ("distributed.client", "distributed.batched")
"""Loggers to which Dask writes a traceback when it loses the scheduler."""


class TaskMap(Protocol):
    """Applies a function to tasks and yields the results in the tasks' order."""

    def __call__(self, function: Callable[[_Task], _Result], tasks: Iterable[_Task], /) -> Iterator[_Result]:
        """Apply the function to every task."""
        ...


def useful_processes(files: Iterable[Path]) -> int:
    """Return how many processes build a store soonest: one for each core, or fewer if the source files are small."""
    return min(CORES, max(1, sum(map(_size_of, files)) // BYTES_PER_PROCESS))


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        # The build itself names a file that cannot be read.
        return 0


@contextmanager
def task_map(workers: int, dask_address: str | None = None) -> Generator[TaskMap]:
    """Open workers for a build.

    Args:
        workers: Number of processes; with one, tasks run in this process.
        dask_address: Address of a Dask scheduler to use instead, or `local` for a cluster of `workers` processes on
            this machine. Workers on other machines need the source and the working folder under the same paths.

    Raises:
        ConfigError: Dask is not installed, no scheduler answers, or this machine cannot start processes.
        SourceError: A worker process or the scheduler died.
    """
    if dask_address is not None:
        with _dask_map(dask_address, workers) as run:
            yield _timed(run)
    elif workers <= 1:
        yield map
    else:
        with _process_map(workers) as run:
            yield _timed(run)


def _timed(run: TaskMap) -> TaskMap:
    """Add the times of the workers' stages to this process's times, if times are collected."""
    if not is_collecting():
        return run

    def timed(function: Callable[[Any], Any], tasks: Iterable[Any], /) -> Iterator[Any]:
        for result, timings in run(TimedTask(function), tasks):
            add_timings(timings)
            yield result

    return timed


def _begin_worker(begun: EventType, formatter: logging.Formatter | None) -> None:
    """Set up a worker process to end when its parent ends, because a killed build cannot stop its workers.

    Args:
        begun: Is set when the process has started.
        formatter: The form of its log lines; None leaves it to Python.
    """
    begun.set()
    if formatter is not None:
        handler = logging.StreamHandler()
        handler.setFormatter(formatter)
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        logging.captureWarnings(isinstance(formatter, JsonFormatter))
    # Ctrl-C reaches the workers, too. It ends a task, but an idle worker waits until the parent ends it: if one died,
    # the pool would kill the others, and they could not free their semaphores.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = parent_process()
    if parent is not None:
        Thread(target=_wait_and_end, args=(parent.sentinel,), daemon=True).start()


@contextmanager
def _interrupts_held() -> Generator[None]:
    """Hold Ctrl-C back while processes start; they begin with it held back, and `_begin_worker` releases it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _InterruptibleTask:
    """A function that Ctrl-C ends in a worker process, without a traceback."""

    function: Callable[[Any], Any]

    def __call__(self, task: Any, /) -> Any:
        signal.signal(signal.SIGINT, _end_interrupted)
        try:
            return self.function(task)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_interrupted(_number: int, _frame: FrameType | None) -> None:
    sys.exit(INTERRUPTED)


def _wait_and_end(sentinel: int) -> None:
    wait([sentinel])
    # Only `os._exit` ends a busy process from a thread. The file that it was writing has no record yet, so the next
    # build sees that it is unfinished.
    os._exit(1)


@contextmanager
def _process_map(workers: int) -> Generator[TaskMap]:
    # Processes are spawned, because a forked one would copy the locks that the parent's libraries hold.
    context = get_context("spawn")
    try:
        begun = context.Event()
        start = (begun, own_formatter())
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=start)
    except OSError as error:
        # Locks that processes share are files in shared memory.
        raise ConfigError(
            f"--workers {workers}", f"cannot start processes ({error})", "make /dev/shm writable, or use --workers 1"
        ) from error

    def run(function: Callable[[Any], Any], tasks: Iterable[Any], /) -> Iterator[Any]:
        listed = list(tasks)
        done = 0
        # A build that runs in the background ignores Ctrl-C, and so do its workers.
        is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        try:
            # `map` starts the processes. It raises if a worker died while it was idle.
            with _interrupts_held():
                results = executor.map(function if is_ignored else _InterruptibleTask(function), listed)
            for result in results:
                yield result
                done += 1
        except BrokenProcessPool as error:
            if not begun.is_set() and is_script():
                raise ConfigError(
                    "the worker processes", "ended while they imported this script", GUARD_REMEDY
                ) from error
            raise SourceError(
                f"a worker process, at {listed[done]} or one of the next {workers}",
                "died, often because memory ran out",
                "repeat the command with fewer --workers",
            ) from error

    try:
        yield run
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _dask_map(address: str, workers: int) -> Generator[TaskMap]:
    try:
        from distributed import Client, LocalCluster
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise ConfigError("--dask", "needs dask.distributed", "pip install 'bcss-sam2[dask]'") from error
    cluster: Any = None
    try:
        if address == DASK_LOCAL:
            # Each worker has one thread: a ROI keeps a core busy, and a worker has memory for one ROI.
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
        client: Any = Client(cluster or address, timeout=DASK_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"--dask {address}", f"finds no scheduler ({error})", "start one with `dask scheduler`, or use --dask local"
        ) from error

    def run(function: Callable[[Any], Any], tasks: Iterable[Any], /) -> Iterator[Any]:
        if client.status == "closed":
            # The client closes itself some time after it has lost the connection.
            raise _scheduler_gone(address, "no longer connected")
        # A task writes all of its files or none, so the task of a dead worker is simply run again.
        futures = client.map(function, list(tasks), pure=False)
        return (_result(client, future) for future in futures)

    with _silent(_CONNECTION_LOGGERS):
        try:
            yield run
        except KilledWorker as error:
            raise SourceError("a Dask worker", f"died again and again ({error})", "give workers more memory") from error
        except (CancelledError, CommClosedError) as error:
            # Dask raises CommClosedError if a result was being transferred.
            raise _scheduler_gone(address, error) from error
        finally:
            client.close()
            if cluster is not None:
                cluster.close()


def _scheduler_gone(address: str, why: object) -> SourceError:
    return SourceError(
        f"the scheduler of --dask {address}",
        f"has stopped, or has dropped a task ({why})",
        "start it again, and repeat the command: it continues from here",
    )


def _result(client: Any, future: Any) -> Any:
    """Wait for a result; log a warning if the scheduler has no worker yet, since a cluster may start them later."""
    done, said = Event(), False

    def wake(_: Any) -> None:
        done.set()

    future.add_done_callback(wake)
    while not done.wait(DASK_CHECK_EVERY_S):
        scheduler = client.scheduler_info()
        # Without a connection, the client does not know the workers.
        if not said and scheduler.get("workers") == {}:
            logger.warning("the Dask scheduler %s has no worker; waiting for one", scheduler["address"])
            said = True
    return future.result()


@contextmanager
def _silent(names: tuple[str, ...]) -> Generator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
