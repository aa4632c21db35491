"""A Dask scheduler and its workers. Each is a real process on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import prep


class Cluster:
    """A scheduler and two workers; more can be added."""

    def __init__(self, folder: Path) -> None:
        self._described = folder / "scheduler.json"
        self._folder = folder
        self.scheduler = self._start("scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        self.workers: list[subprocess.Popen[bytes]] = []
        for _ in range(2):
            self.add_worker()
        while not self._described.exists() or not self._described.read_text():
            assert self.scheduler.poll() is None
            time.sleep(0.05)
        self.address: str = json.loads(self._described.read_text())["address"]

    def __enter__(self) -> Cluster:
        """Return the cluster; the end of the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill every process."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def add_worker(self) -> None:
        """Start one more worker, without a nanny process, which would restart it."""
        flags = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60"]
        self.workers.append(self._start("worker", *flags))

    def _start(self, what: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(self._described)]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*command, "--host", "127.0.0.1", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Like workers on other machines, they run in a different folder than the build.
            cwd=self._folder,
            env=os.environ | {"PYTHONPATH": str(Path(prep.__file__).parents[1])},
        )
        return process
