"""Start our commands as real processes, without the seconds that their imports take.

A server process imports the libraries once and then forks one process for each command, as Python's `forkserver` does.
The forked process runs the module as `python -m` would. It has its own process id, files, environment and signals, so
it can be stopped and killed. Tests of the start itself use `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path

SERVER = get_context("forkserver")
"""Processes are forked from a server that has imported these modules."""

SERVER.set_forkserver_preload(
    [
        "torch._dynamo",
        "tensorboard.summary",
        "sam2.build_sam",
        "train.fit.trainer",
        "train.evaluation.verify",
        "train.predict",
        "prep.build",
    ]
)


class WarmProcess:
    """A running command, with the methods of `subprocess.Popen` that tests use.

    Args:
        command: `[sys.executable, "-m", module, argument, ...]`.
        env: The environment; None keeps the one of this process.
        start_new_session: Whether the command leads a process group of its own.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, *, start_new_session: bool = False
    ) -> None:
        assert command[:2] == [sys.executable, "-m"], command
        self._folder = Path(tempfile.mkdtemp())
        self._printed = [self._folder / name for name in ("stdout", "stderr")]
        self._said: tuple[str, str] | None = None
        environment = dict(os.environ if env is None else env)
        arguments = (command[2], [*command[3:]], environment, self._printed, start_new_session)
        self._process = SERVER.Process(target=_run, args=arguments)
        self._process.start()
        self.pid: int = self._process.pid or 0
        # Only a process that has opened its files has a group of its own, if it is to have one.
        while not self._printed[1].exists() and self._process.is_alive():
            time.sleep(0.001)

    @property
    def returncode(self) -> int | None:
        """Exit status, or the negative number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what was printed to stdout and to stderr."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        if self._said is None:
            out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._printed)
            self._said = out, err
            shutil.rmtree(self._folder)
        return self._said


def run_warm(command: Sequence[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = WarmProcess(command)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess([*command], process.returncode or 0, out, err)


def _run(module: str, arguments: list[str], env: dict[str, str], printed: list[Path], lead: bool) -> None:
    # The forked process keeps all that was imported, so it need not look for unused objects there.
    gc.freeze()
    if lead:
        os.setsid()
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # Python runs these at the end of a process, but not at the end of one that `multiprocessing` has forked.
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        sys.stdout.flush()
        sys.stderr.flush()
