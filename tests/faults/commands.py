"""Start the two programs as a user does, and check that they report a failure in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from tests.warm_start import WarmProcess
from train.model.checkpoint import load_checkpoint

TIMEOUT_S = 240
"""Time limit of a command in seconds; a command that takes longer is killed and fails the test."""

# A frozen encoder makes checkpoints small, so that a kill hits steps and saves equally often.
FIT_FLAGS = {
    "model": "nano",
    "image_size": 128,
    "batch_size": 2,
    "max_objects": 2,
    "max_steps": 6,
    "save_every_steps": 1,
    "workers": 0,
    "freeze": "image_encoder",
    "optimizer.lr": 1e-4,
    "device": "cpu",
    "report": False,
    "seed": 3,
}


def build_command(source: Path, out: Path | str, *more: str) -> list[str]:
    """Return a `bcss-prep build` command with the settings of the fixture `store`."""
    return [sys.executable, "-m", "prep.cli", "build", str(source), "--out", str(out), "--size", "128", *more]


def fit_command(store: str, out: Path, *more: str) -> list[str]:
    """Return a `bcss-train fit` command with the flags above."""
    flags = [
        "--model",
        "nano",
        "--image-size",
        "128",
        "--batch-size",
        "2",
        "--max-objects",
        "2",
        "--max-steps",
        "6",
        "--seed",
        "3",
    ]
    flags += ["--save-every-steps", "1", "--freeze", "image_encoder", "--lr", "1e-4", "--device", "cpu", "--no-report"]
    given = more if "--workers" in more else ("--workers", "0", *more)
    return [sys.executable, "-m", "train.cli", "fit", store, "--out", str(out), *flags, *given]


def start(command: list[str], env: dict[str, str] | None = None) -> WarmProcess:
    """Start a command in its own process group."""
    return WarmProcess(command, os.environ | (env or {}), start_new_session=True)


def kill(process: WarmProcess) -> None:
    """Kill a command and all of its processes with `kill -9`; the command may already have ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finish(process: WarmProcess) -> tuple[int, str]:
    """Wait for a command to end; a command that hangs is killed and fails the test."""
    try:
        _, said = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return process.returncode or 0, said


def run(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command, and return its exit status and what it wrote to stderr."""
    return finish(start(command, env))


def wait_for_work(process: WarmProcess, folder: Path) -> None:
    """Wait until a build has locked its working folder, so that a fault hits the build and not the start of Python."""
    while process.poll() is None and not any(folder.glob("*/*")):
        time.sleep(0.002)


def one_line(status: int, said: str) -> str:
    """Check that a command failed with one line of error, and return this line."""
    assert status == 1, (status, said)
    assert "Traceback" not in said, said
    # A progress bar may stand before the error on the same line.
    lines = [line.rpartition("\r")[2] for line in said.splitlines() if "error: " in line]
    assert len(lines) == 1, said
    return lines[0]


def assert_same_weights(run_folder: Path, straight: Path) -> None:
    """Check that two runs end with the same weights and the same optimizer state, bit for bit."""
    ours, theirs = (load_checkpoint(out / "checkpoints" / "checkpoint.pt") for out in (run_folder, straight))
    assert ours["steps"] == theirs["steps"]
    for name, weight in theirs["model"].items():
        assert torch.equal(ours["model"][name], weight), name
    for number, state in theirs["optimizer"]["state"].items():
        for key, value in state.items():
            assert torch.equal(ours["optimizer"]["state"][number][key], value), (number, key)
