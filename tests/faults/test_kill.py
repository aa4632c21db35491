"""Test `kill -9` at random moments: the next run finishes with the same bytes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from prep.build import build_store
from prep.config import BuildConfig
from schemas.store.store import Store
from tests.faults.commands import assert_same_weights, build_command, fit_command, kill, run, start, wait_for_work
from tests.faults.forms import LONG_TIMEOUT_S, forms
from tests.folders import bytes_of

KILLS_A_RUN = 4


@pytest.mark.parametrize("kills", forms(2, 20))
def test_killed_builds_end_with_the_same_bytes(
    sample_source: Path, store: Store, tmp_path: Path, kills: int, tally
) -> None:
    draw, landed = random.Random(0), 0
    begun = time.monotonic()
    assert run(build_command(sample_source, tmp_path / "whole.zarr", "--workers", "1"))[0] == 0
    took_s = time.monotonic() - begun
    for number in range(kills):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = start(build_command(sample_source, folder / "s.zarr", "--workers", str(1 + number % 2)))
        wait_for_work(process, folder)
        # Starting Python takes half of the time of a build. The first kill comes at once, so one hits a running build.
        time.sleep(draw.uniform(0, took_s / 4) if number else 0)
        landed += process.poll() is None
        kill(process)
        build_store(sample_source, folder / "s.zarr", BuildConfig(size_px=128))
        assert bytes_of(folder / "s.zarr") == bytes_of(store.path)
        assert [path.name for path in folder.iterdir()] == ["s.zarr"]
    assert landed
    tally("kill -9 of a build", killed=kills, before_its_end=landed, other_bytes=0)


@pytest.mark.faults
@pytest.mark.timeout(LONG_TIMEOUT_S)
@pytest.mark.parametrize("kills", [20])
def test_killed_fits_end_with_the_same_weights(store: Store, straight: Path, tmp_path: Path, kills: int, tally) -> None:
    draw, landed = random.Random(1), 0
    for first in range(0, kills, KILLS_A_RUN):
        out = tmp_path / str(first)
        for number in range(first, min(first + KILLS_A_RUN, kills)):
            process = start(fit_command(store.path, out, "--resume", "--workers", str(number % 2)))
            step = (number % KILLS_A_RUN) + draw.randrange(2)
            while process.poll() is None and _steps(out) < step:
                time.sleep(0.005)
            # A step takes about as long as a save.
            time.sleep(draw.uniform(0, 1.5))
            landed += process.poll() is None
            kill(process)
        assert run(fit_command(store.path, out, "--resume"))[0] == 0
        assert_same_weights(out, straight)
    assert landed
    tally("kill -9 of a fit", killed=kills, before_its_end=landed, other_weights=0)


def _steps(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return metrics.read_text(errors="ignore").count('"grad_norm"') if metrics.exists() else 0
