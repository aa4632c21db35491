"""Runs that are killed, asked to stop, or damaged, and go on: real processes, real signals."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from schemas.errors import ConfigError
from schemas.store import Store
from train.checkpoint import load_checkpoint
from train.config import read_config
from train.runlog import StepRecord, read_steps
from train.trainer import fit

FLAGS = {
    "image_size": 128,
    "batch_size": 2,
    "max_objects": 2,
    "max_steps": 12,
    "optimizer.lr": 1e-4,
    "optimizer.vision_lr": 1e-4,
    "optimizer.ema_decay": 0.5,
    "corrections": 1,
    "device": "cpu",
    "seed": 3,
}


def _command(store: Store, out: Path, *more: str) -> list[str]:
    flags = ["--image-size", "128", "--batch-size", "2", "--max-objects", "2", "--max-steps", "12", "--lr", "1e-4"]
    flags += ["--vision-lr", "1e-4", "--ema", "0.5", "--corrections", "1", "--device", "cpu", "--seed", "3"]
    return [sys.executable, "-m", "train.cli", "fit", store.path, "--out", str(out), *flags, *more]


@pytest.fixture(scope="module")
def straight(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight")
    fit(store, read_config(None, {**FLAGS, "workers": 0}), out)
    return out


def _assert_same(run: Path, straight: Path) -> None:
    ours, theirs = (load_checkpoint(folder / "checkpoints" / "checkpoint.pt") for folder in (run, straight))
    for part in ("model", "ema"):
        for name, weight in theirs[part].items():
            assert torch.equal(ours[part][name], weight), name
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


def _wait_for_step(process: subprocess.Popen[bytes], out: Path, step: int) -> None:
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count('"grad_norm"') < step:
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_run_goes_on_bit_by_bit(store: Store, straight: Path, tmp_path: Path, workers: int) -> None:
    command = _command(store, tmp_path, "--save-every-steps", "5", "--workers", str(workers))
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _wait_for_step(process, tmp_path, 7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt")["steps"] == 5
    fit(store, read_config(None, {**FLAGS, "workers": 2 - workers}), tmp_path, resume=True)
    _assert_same(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_step_saves_and_exits_0(store: Store, straight: Path, tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        _command(store, tmp_path, "--workers", "0"), stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=False
    )
    _wait_for_step(process, tmp_path, 2)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    steps = load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt")["steps"]
    assert f"stopped by {signal.Signals(number).name} after step {steps}; --resume goes on" in said.decode()
    assert json.loads((tmp_path / "summary.json").read_text())["stopped_by"] == signal.Signals(number).name
    assert steps < 12
    fit(store, read_config(None, {**FLAGS, "workers": 0}), tmp_path, resume=True)
    _assert_same(tmp_path, straight)


def test_corrupt_checkpoint_is_named_and_the_one_before_is_taken(
    store: Store, straight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(record: StepRecord, total: int) -> None:
        if record.step == 8:
            raise KeyboardInterrupt

    config = read_config(None, {**FLAGS, "workers": 0, "save_every_steps": 3})
    with pytest.raises(KeyboardInterrupt):
        fit(store, config, tmp_path, on_step=stop)
    last = tmp_path / "checkpoints" / "checkpoint.pt"
    last.write_bytes(last.read_bytes()[:100_000])
    fit(store, config, tmp_path, resume=True)
    assert "checkpoint.pt: cannot be read" in caplog.text
    assert "taking the one before it" in caplog.text
    _assert_same(tmp_path, straight)


def test_other_settings_are_refused(store: Store, straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(ConfigError, match="was begun with batch_size = 2, not 3; repeat its flags"):
        fit(store, read_config(None, {**FLAGS, "batch_size": 3}), tmp_path / "run", resume=True)


def test_finished_run_is_left_as_it_is(store: Store, straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoints" / "checkpoint.pt").read_bytes()
    summary = fit(store, read_config(None, {**FLAGS, "workers": 0}), tmp_path / "run", resume=True)
    assert summary["steps"] == 12
    assert (tmp_path / "run" / "checkpoints" / "checkpoint.pt").read_bytes() == before


def test_resume_without_a_run_starts_one(store: Store, tmp_path: Path) -> None:
    summary = fit(store, read_config(None, {**FLAGS, "max_steps": 1, "workers": 0}), tmp_path, resume=True)
    assert summary["steps"] == 1
