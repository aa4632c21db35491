"""Test data-loading processes that die, and clocks that jump."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from schemas.store.store import Store
from tests.faults.commands import (
    assert_same_weights,
    build_command,
    finish,
    fit_command,
    one_line,
    run,
    start,
)
from tests.faults.forms import forms
from tests.folders import bytes_of

JUMPING_CLOCK = """
import itertools, time
_now, _calls = time.time, itertools.count()
# Hours forwards and backwards, at every call; clocks that count from the start of the machine go on as they do.
time.time = lambda: _now() + (0, 86400, -86400, 3600)[next(_calls) % 4]
time.time_ns = lambda: int(time.time() * 1e9)
"""


@pytest.mark.parametrize("deaths", forms(1, 2))
def test_killed_loading_process_is_one_line(store: Store, straight: Path, tmp_path: Path, deaths: int, tally) -> None:
    for number in range(deaths):
        process = start(fit_command(store.path, tmp_path / "run", "--workers", "2", "--resume"))
        os.kill(_loaders(process.pid)[number], signal.SIGKILL)
        said = one_line(*finish(process))
        assert re.search(
            r"a loading process, at the tiles \[\d+, \d+\]: failed \(DataLoader worker .* exited unexpectedly\)", said
        )
        assert said.endswith("try fewer --workers, or 0, and give --resume")
    assert run(fit_command(store.path, tmp_path / "run", "--resume"))[0] == 0
    assert_same_weights(tmp_path / "run", straight)
    tally("DataLoader worker killed", tried=deaths, one_line=deaths, other_weights=0)


def _loaders(parent: int) -> list[int]:
    """Wait for the two loading processes of a fit, and return their ids; multiprocessing's helper does not count."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        children = [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        found = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        if len(found) == 2:
            return found
        time.sleep(0.01)
    raise AssertionError("no loading processes were started")


@pytest.mark.parametrize("fits", forms(0, 1))
def test_clock_that_jumps_changes_nothing(
    sample_source: Path, store: Store, request: pytest.FixtureRequest, tmp_path: Path, fits: int, tally
) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(JUMPING_CLOCK)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "clock"), os.environ.get("PYTHONPATH", str(Path.cwd()))])}
    assert run(build_command(sample_source, tmp_path / "s.zarr", "--workers", "2"), env)[0] == 0
    assert bytes_of(tmp_path / "s.zarr") == bytes_of(store.path)
    for _ in range(fits):
        assert run(fit_command(store.path, tmp_path / "run", "--workers", "1"), env)[0] == 0
        assert_same_weights(tmp_path / "run", request.getfixturevalue("straight"))
    tally("wall clock that jumps by hours", builds=1, fits=fits, other_bytes=0)
