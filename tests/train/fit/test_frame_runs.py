"""Runs on windows of frames: killed and resumed, with adapters, a moving average and accumulated batches."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.store.store import Store
from tests.train.same_runs import assert_same_runs, wait_for_step
from tests.warm_start import WarmProcess
from train.config import FitConfig, read_config
from train.data.collate import collate
from train.data.dataset import SampleRequest
from train.data.loader import training_dataset
from train.data.windows import find_windows
from train.fit.average import decay_after
from train.fit.state import RunIdentity, start_run
from train.fit.step import TrainStep
from train.fit.trainer import fit
from train.model.checkpoint import load_checkpoint
from train.runtime.distributed import World
from train.runtime.run_log import StepRecord
from train.score.answers import tiles_with_objects

SETTINGS: dict[str, Any] = {
    "init": "nano",
    "image_size": 128,
    "frames": 3,
    "reverse": 0.5,
    "prompt": "random",
    "corrections": 1,
    "corrected_frames": 2,
    "batch_size": 1,
    "max_steps": 4,
    "optimizer.lr": 1e-4,
    "optimizer.ema_decay": 0.5,
    "optimizer.final_lr_fraction": 1.0,
    "device": "cpu",
    "report": False,
    "workers": 0,
}
MEMORY = "memory_attention.layers.0.linear1.weight"


def _config(**changes: Any) -> FitConfig:
    return read_config(None, {**SETTINGS, **changes})


@pytest.fixture(scope="module")
def straight(sequences: Store, module_path: Path) -> Path:
    fit(sequences, _config(), module_path)
    return module_path


@pytest.mark.slow
def test_killed_run_resumes_bit_for_bit(sequences: Store, straight: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text(_config(save_every_steps=2).model_dump_json())
    command = [sys.executable, "-m", "train.cli", "fit", sequences.path, "--out", str(out), "--config", str(config)]
    process = WarmProcess(command)
    wait_for_step(process, out, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert load_checkpoint(out / "checkpoints" / "checkpoint.pt")["steps"] == 2
    fit(sequences, _config(workers=2), out, resume=True)
    assert_same_runs(out, straight)


def test_average_follows_the_memory(sequences: Store, tmp_path: Path) -> None:
    fit(sequences, _config(max_steps=2, save_every_steps=1), tmp_path)
    before, after = (load_checkpoint(tmp_path / "checkpoints" / name) for name in ("previous.pt", "checkpoint.pt"))
    first, second = before["model"][MEMORY], after["model"][MEMORY]
    # The average begins with the weights after the first step.
    assert torch.equal(before["ema"]["model"][MEMORY], first)
    assert not torch.equal(first, second)
    share = decay_after(1, 0.5)
    torch.testing.assert_close(after["ema"]["model"][MEMORY], share * first + (1 - share) * second)


@pytest.mark.slow
def test_adapters_train_with_the_memory_and_resume(sequences: Store, straight: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the lora extra is not installed")
    lora = {"model": "nano", "lora.rank": 2, "init": straight / "checkpoints" / "checkpoint.pt"}

    def stop(record: StepRecord, total: int) -> None:
        if record.step == 2:
            raise KeyboardInterrupt

    fit(sequences, _config(**lora, max_steps=3), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(sequences, _config(**lora, max_steps=3, save_every_steps=1), tmp_path / "parts", on_step=stop)
    fit(sequences, _config(**lora, max_steps=3), tmp_path / "parts", resume=True)
    assert_same_runs(tmp_path / "parts", tmp_path / "whole")
    start, end = (load_checkpoint(out / "checkpoints" / "checkpoint.pt") for out in (straight, tmp_path / "whole"))
    assert any("lora_B" in name and weight.abs().sum() > 0 for name, weight in end["adapter"].items())
    assert not torch.equal(end["model"][MEMORY], start["model"][MEMORY])


def test_accumulated_windows_equal_one_large_batch(sequences: Store) -> None:
    """The windows have other numbers of objects, so a mean of means would not do."""
    config = _config(batch_size=2)
    dataset = training_dataset(sequences, config, find_windows(sequences, tiles_with_objects(sequences, "all"), 3, 1))
    samples = [dataset[SampleRequest(start, 0)] for start in (6, 8)]
    samples[1] = samples[1].keep(torch.tensor([True, False]))
    found: list[tuple[dict[str, float], dict[str, torch.Tensor]]] = []
    for parts in ([samples], [[samples[0]], [samples[1]]]):
        run = start_run(config, RunIdentity("", 2, 1), torch.device("cpu"))
        step = TrainStep(run.model, run.optimizer, config, World(), torch.device("cpu"))
        values, _ = step([collate(part) for part in parts])
        found.append((values, {name: p.grad for name, p in run.model.sam.named_parameters() if p.grad is not None}))
    (whole, gradients), (parts_values, parts_gradients) = found
    assert parts_values == pytest.approx(whole, rel=1e-4)
    assert gradients.keys() == parts_gradients.keys()
    assert gradients[MEMORY].abs().max() > 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(parts_gradients[name], gradient, rtol=1e-3, atol=1e-6)
