"""Dask schedulers and workers that die at any moment of a build."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from schemas.store import Store
from tests.dask_cluster import Cluster
from tests.faults.commands import build_command, bytes_of, finish, kill, one_line, run, start
from tests.faults.forms import LONG_TIMEOUT_S

pytest.importorskip("distributed", reason="the dask extra is not installed")

# Their short forms are in tests/prep/test_parallel.py.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(LONG_TIMEOUT_S)]

KILLS = 20


def test_killed_schedulers_are_one_line(sample_source: Path, store: Store, tmp_path: Path, tally) -> None:
    draw, finished = random.Random(0), 0
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Cluster(folder) as cluster:
            out = folder / "out" / "s.zarr"
            out.parent.mkdir()
            process = start(build_command(sample_source, out, "--dask", cluster.address))
            _wait_for_work(out.parent, process)
            time.sleep(draw.uniform(0, 1))
            cluster.scheduler.kill()
            status, said = finish(process)
        if status == 0:
            finished += 1
        else:
            assert "start it again, and repeat the command" in one_line(status, said)
            status, said = run(build_command(sample_source, out))
            assert status == 0, said
        assert bytes_of(out) == bytes_of(store.path)
    assert finished < KILLS
    tally("Dask scheduler killed", tried=KILLS, one_line=KILLS - finished, finished=finished, other_bytes=0)


def test_killed_dask_workers_are_not_noticed(sample_source: Path, store: Store, tmp_path: Path, tally) -> None:
    draw, landed = random.Random(1), 0
    with Cluster(tmp_path) as cluster:
        for number in range(KILLS):
            out = tmp_path / f"{number}" / "s.zarr"
            out.parent.mkdir()
            process = start(build_command(sample_source, out, "--dask", cluster.address))
            _wait_for_work(out.parent, process)
            time.sleep(draw.uniform(0, 1))
            landed += process.poll() is None
            cluster.workers[-1].kill()
            cluster.add_worker()
            assert finish(process)[0] == 0
            assert bytes_of(out) == bytes_of(store.path)
    assert landed
    tally("Dask worker killed", tried=KILLS, before_the_end=landed, finished=KILLS, other_bytes=0)


def test_killed_builds_leave_their_workers_to_the_next(
    sample_source: Path, store: Store, tmp_path: Path, tally
) -> None:
    draw, landed = random.Random(2), 0
    with Cluster(tmp_path) as cluster:
        for number in range(KILLS):
            out = tmp_path / f"{number}" / "s.zarr"
            out.parent.mkdir()
            process = start(build_command(sample_source, out, "--dask", cluster.address))
            _wait_for_work(out.parent, process)
            time.sleep(draw.uniform(0, 1))
            landed += process.poll() is None
            if number % 2:
                kill(process)
            else:
                process.send_signal(signal.SIGINT)
                assert "Traceback" not in finish(process)[1]
            # The workers are at work for the first one yet.
            status, said = run(build_command(sample_source, out, "--dask", cluster.address))
            assert status == 0, said
            assert bytes_of(out) == bytes_of(store.path)
    assert landed
    tally("build with Dask killed or interrupted", tried=KILLS, before_its_end=landed, other_bytes=0)


def _wait_for_work(folder: Path, process) -> None:
    """Until a build has made its first file, so that the moment falls into it and not into the start of Python."""
    while process.poll() is None and not any(folder.iterdir()):
        time.sleep(0.002)
