"""Long runs: memory and the number of file descriptors stay flat, in the training process and its loading processes.

`make test-soak` runs these tests and prints the figures.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.store.store import Store, open_store
from train.config import FitConfig
from train.data.loader import training_dataset, training_loader
from train.data.sampler import EpochSampler
from train.fit.trainer import fit

SAMPLES = 20_000
STEPS = 500
STEPS_OF_TWO = 200

GROWTH_MB = 32.0
"""Most anonymous memory that a process may gain after its warm-up; a leak of 2 KB per sample would gain more."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="memory and descriptors are read from /proc"),
]


@dataclass(frozen=True)
class Held:
    """Anonymous memory in MB and number of open file descriptors of a process."""

    anonymous_mb: float
    descriptors: int


def _held(pid: int) -> Held:
    status = Path(f"/proc/{pid}/status").read_text()
    # Leave out the pages of files and of shared memory, which come and go with batches.
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return Held(int(line.split()[1]) / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())))


def _shared_files() -> int:
    return len(list(Path("/dev/shm").iterdir()))


def _check_flat(what: str, warm: dict[int, Held], end: dict[int, Held]) -> None:
    assert warm.keys() == end.keys(), f"{what}: a process was replaced"
    for number, pid in enumerate(sorted(warm)):
        then, now = warm[pid], end[pid]
        print(
            f"{what}, process {number}: {then.anonymous_mb:.1f} -> {now.anonymous_mb:.1f} MB, "
            f"{then.descriptors} -> {now.descriptors} descriptors"
        )
    for pid in warm:
        assert end[pid].anonymous_mb - warm[pid].anonymous_mb < GROWTH_MB
        assert end[pid].descriptors <= warm[pid].descriptors + 2


def _all_held(pids: Iterable[int]) -> dict[int, Held]:
    return {pid: _held(pid) for pid in pids}


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of some hundred tiles of 64 px, in the splits train and val."""
    folder = tmp_path_factory.mktemp("soak")
    write_sample(folder / "source", rois=6, size_px=288, seed=1)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=64))
    return open_store(folder / "s.zarr")


def test_loader_stays_flat(tiny_store: Store) -> None:
    config = FitConfig(image_size=128, batch_size=8, workers=2, prompt="mixed", device="cpu")
    sampler = EpochSampler(np.arange(len(tiny_store)), config.batch_size, config.seed)
    loader = training_loader(training_dataset(tiny_store, config), config, sampler, torch.device("cpu"))
    shared_before, seen, warm, start = _shared_files(), 0, None, time.perf_counter()
    while seen < SAMPLES:
        seen += sum(batch.images.shape[1] for batch in loader)
        sampler.epoch += 1
        pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
        if warm is None and seen >= SAMPLES // 5:
            warm = _all_held(pids)
    assert warm is not None
    assert len(warm) == 1 + config.workers
    print(f"\n{seen} samples in {sampler.epoch} epochs, {seen / (time.perf_counter() - start):.0f} per second")
    _check_flat("loader", warm, _all_held(warm))
    # Each process has a batch or two on its way; earlier batches are gone.
    assert _shared_files() - shared_before < 200


def test_fit_stays_flat(tiny_store: Store, tmp_path: Path) -> None:
    # Few tiles give many epochs; each validates, saves and restarts the loading processes.
    config = FitConfig(
        image_size=128, batch_size=2, workers=1, device="cpu", epochs=1000, max_steps=STEPS, report=False
    )
    readings: list[dict[int, Held]] = []

    def watch(record: object, _total: int) -> None:
        if getattr(record, "step", 0) % 10 == 0:
            pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
            readings.append(_all_held(pids))

    start = time.perf_counter()
    summary = fit(tiny_store, config, tmp_path / "run", on_step=watch)
    took = time.perf_counter() - start
    assert summary["steps"] == STEPS
    print(f"\n{STEPS} steps in {summary['epochs']:.1f} epochs, {took / STEPS:.2f} s per step with all work in between")
    # Compare the peaks of the first and the last third, because single readings differ by 50 MB.
    third = len(readings) // 3
    _check_flat("fit", _peaks(readings[:third]), _peaks(readings[-third:]))


def test_two_processes_stay_flat(tiny_store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = ["--image-size", "128", "--batch-size", "1", "--workers", "0", "--device", "cpu", "--no-report"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "train.cli", "fit", tiny_store.path, "--out", str(out), *small]
    command += ["--max-steps", str(STEPS_OF_TWO), "--epochs", "1000"]
    with (tmp_path / "printed").open("w") as printed:
        running = subprocess.Popen(command, stdout=printed, stderr=printed)
        seen: list[dict[int, Held]] = []
        while running.poll() is None:
            time.sleep(1)
            steps = _steps_of(out)
            if STEPS_OF_TWO // 5 <= len(steps) < STEPS_OF_TWO:
                seen.append(_all_held(_children_of(running.pid)))
    assert running.returncode == 0, (tmp_path / "printed").read_text()
    steps = _steps_of(out)
    assert [entry["step"] for entry in steps] == list(range(1, STEPS_OF_TWO + 1))
    assert np.isfinite([entry["loss"] for entry in steps]).all()
    # Compare the peaks of both thirds, because a process may be read while it validates or saves.
    third = len(seen) // 3
    print(f"\n{STEPS_OF_TWO} steps of two processes, {len(seen)} readings")
    _check_flat("two processes", _peaks(seen[:third]), _peaks(seen[-third:]))


def _peaks(readings: list[dict[int, Held]]) -> dict[int, Held]:
    pids = readings[0].keys()
    return {
        pid: Held(max(each[pid].anonymous_mb for each in readings), max(each[pid].descriptors for each in readings))
        for pid in pids
    }


def _steps_of(out: Path) -> list[dict[str, float]]:
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [entry for line in lines if line.endswith("\n") and "event" not in (entry := json.loads(line))]


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
