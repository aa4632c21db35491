"""A benchmark whose training is stopped measures nothing."""

import os
import signal
from pathlib import Path

import pytest

from benchmarks.whole_run import fit_whole
from schemas.store.store import Store
from train.config import FitConfig
from train.runtime.run_log import StepRecord


def test_a_stopped_run_ends_the_benchmark_and_the_next_call_finishes_it(store: Store, tmp_path: Path) -> None:
    config = FitConfig(model="nano", image_size=128, max_steps=2, workers=0, device="cpu", report=False)

    def stop(record: StepRecord, _total: int) -> None:
        if record.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit, match="SIGTERM stopped the run, so nothing is measured; start it again"):
        fit_whole(store, config, tmp_path / "run", on_step=stop)
    steps: list[int] = []
    fit_whole(store, config, tmp_path / "run", resume=True, on_step=lambda record, _total: steps.append(record.step))
    assert steps == [2]
