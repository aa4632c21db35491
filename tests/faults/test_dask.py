"""Test builds in which a Dask scheduler or worker dies at a random moment."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from schemas.store.store import Store
from tests.dask_cluster import Cluster
from tests.faults.commands import build_command, finish, kill, one_line, run, start, wait_for_work
from tests.faults.forms import LONG_TIMEOUT_S
from tests.folders import bytes_of
from tests.warm_start import WarmProcess

pytest.importorskip("distributed", reason="the dask extra is not installed")

# The short forms of these tests are in tests/prep/test_parallel.py.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(LONG_TIMEOUT_S)]

KILLS = 20


def test_killed_schedulers_are_one_line(sample_source: Path, store: Store, tmp_path: Path, tally) -> None:
    draw, finished = random.Random(0), 0
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Cluster(folder) as cluster:
            out = folder / "out" / "s.zarr"
            process = _begin(build_command(sample_source, out, "--dask", cluster.address), out.parent, draw)
            cluster.scheduler.kill()
            status, said = finish(process)
        if status == 0:
            finished += 1
        else:
            # On a busy machine the build may not be connected yet, and then it prints another line.
            assert f"--dask {cluster.address}" in one_line(status, said)
            status, said = run(build_command(sample_source, out))
            assert status == 0, said
        assert bytes_of(out) == bytes_of(store.path)
    assert finished < KILLS
    tally("Dask scheduler killed", tried=KILLS, one_line=KILLS - finished, finished=finished, other_bytes=0)


def test_killed_dask_workers_are_not_noticed(sample_source: Path, store: Store, tmp_path: Path, tally) -> None:
    draw, landed = random.Random(1), 0
    with Cluster(tmp_path) as cluster:
        for number in range(KILLS):
            out = tmp_path / str(number) / "s.zarr"
            process = _begin(build_command(sample_source, out, "--dask", cluster.address), out.parent, draw)
            landed += process.poll() is None
            cluster.workers[-1].kill()
            cluster.add_worker()
            status, said = finish(process)
            assert status == 0, said
            assert bytes_of(out) == bytes_of(store.path)
    assert landed
    tally("Dask worker killed", tried=KILLS, before_the_end=landed, finished=KILLS, other_bytes=0)


def test_killed_builds_leave_their_workers_to_the_next(
    sample_source: Path, store: Store, tmp_path: Path, tally
) -> None:
    draw, landed = random.Random(2), 0
    with Cluster(tmp_path) as cluster:
        for number in range(KILLS):
            out = tmp_path / str(number) / "s.zarr"
            command = build_command(sample_source, out, "--dask", cluster.address)
            process = _begin(command, out.parent, draw)
            landed += process.poll() is None
            if number % 2:
                kill(process)
            else:
                process.send_signal(signal.SIGINT)
                assert "Traceback" not in finish(process)[1]
            # The workers are still working for the build that was killed.
            status, said = run(command)
            assert status == 0, said
            assert bytes_of(out) == bytes_of(store.path)
    assert landed
    tally("build with Dask killed or interrupted", tried=KILLS, before_its_end=landed, other_bytes=0)


def _begin(command: list[str], folder: Path, draw: random.Random) -> WarmProcess:
    """Start a build that works in a folder, and return at a random moment during its work or just after it."""
    folder.mkdir()
    process = start(command)
    wait_for_work(process, folder)
    time.sleep(draw.uniform(0, 1))
    return process
