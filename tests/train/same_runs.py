"""Compare two runs, and wait for a step of a run in another process."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from tests.warm_start import WarmProcess
from train.model.checkpoint import load_checkpoint
from train.runtime.run_log import read_steps


def assert_same_runs(run: Path, straight: Path) -> None:
    """Both runs have the same weights, averages, states of the optimizer and steps, bit for bit."""
    ours, theirs = (load_checkpoint(folder / "checkpoints" / "checkpoint.pt") for folder in (run, straight))
    for mine, other in ((ours["model"], theirs["model"]), (ours["ema"]["model"], theirs["ema"]["model"])):
        for name, weight in other.items():
            assert torch.equal(mine[name], weight), name
    for number, state in theirs["optimizer"]["state"].items():
        for key, value in state.items():
            assert torch.equal(ours["optimizer"]["state"][number][key], value)
    for key in ("steps", "epoch", "loss", "best_meter_values", "sampler"):
        assert ours[key] == theirs[key]
    untimed = [
        [(s.step, s.epoch, s.loss, s.grad_norm, s.lr, s.tiles) for s in read_steps(folder)]
        for folder in (run, straight)
    ]
    assert untimed[0] == untimed[1]


def wait_for_step(process: WarmProcess, out: Path, step: int) -> None:
    """Wait until a run has written the line of a step."""
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count('"grad_norm"') < step:
        assert process.poll() is None
        time.sleep(0.02)
