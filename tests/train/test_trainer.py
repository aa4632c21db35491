import json
import logging
from pathlib import Path

import pytest
import torch

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import CheckpointError, ConfigError, TrainingError
from schemas.store import Store, open_store
from train.checkpoint import load_checkpoint
from train.config import FitConfig
from train.runlog import StepRecord, read_steps
from train.trainer import fit

FAST = FitConfig(image_size=128, batch_size=2, max_objects=2, lr=1e-4, vision_lr=1e-4, device="cpu", seed=3)


def _with(**changes: object) -> FitConfig:
    return FitConfig.model_validate({**FAST.model_dump(), **changes})


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Nine training tiles and six to validate on."""
    from prep.sample import write_sample

    folder = tmp_path_factory.mktemp("small")
    write_sample(folder / "source", rois=2, size_px=128, seed=5)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=64))
    return open_store(folder / "s.zarr")


@pytest.fixture(scope="module")
def straight(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps without a break."""
    out = tmp_path_factory.mktemp("straight")
    fit(store, _with(max_steps=4), out)
    return out


def test_run_leaves_what_the_design_says(straight: Path) -> None:
    content = load_checkpoint(straight / "checkpoints" / "checkpoint.pt")
    for key in ("model", "optimizer", "epoch", "loss", "steps", "time_elapsed", "best_meter_values", "config"):
        assert key in content
    assert content["steps"] == 4
    assert (straight / "checkpoints" / "best.pt").exists()
    assert list((straight / "tensorboard").iterdir())
    assert json.loads((straight / "config.json").read_text())["image_size"] == 128
    summary = json.loads((straight / "summary.json").read_text())
    for key in ("steps", "epochs", "loss_first", "loss_last", "images_per_s", "data_wait_fraction"):
        assert summary[key] >= 0
    assert summary["peak_memory_bytes"] > 1e6
    assert summary["device"] == "cpu"
    assert summary["val"]["box"]["overall"]["n"] > 0
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "event" not in line] == [1, 2, 3, 4]
    assert lines[-1]["event"] == "epoch"
    assert all(0 <= line["data_wait_s"] <= line["step_s"] for line in lines if "event" not in line)
    assert all(len(line["tiles"]) == 2 for line in lines if "event" not in line)


def test_resumed_run_is_bit_for_bit_the_uninterrupted_one(store: Store, straight: Path, tmp_path: Path) -> None:
    def kill(record: StepRecord, total: int) -> None:
        if record.step == 3:
            raise KeyboardInterrupt

    config = _with(max_steps=4, save_every_steps=2, workers=1)
    with pytest.raises(KeyboardInterrupt):
        fit(store, config, tmp_path, on_step=kill)
    fit(store, config, tmp_path, resume=True)
    ours, theirs = (load_checkpoint(run / "checkpoints" / "checkpoint.pt") for run in (tmp_path, straight))
    for name, weight in theirs["model"].items():
        assert torch.equal(ours["model"][name], weight), name
    assert _tensors(ours["optimizer"]) == _tensors(theirs["optimizer"])
    assert [(s.step, s.loss, s.tiles) for s in read_steps(tmp_path)] == [
        (s.step, s.loss, s.tiles) for s in read_steps(straight)
    ]


def _tensors(optimizer: dict) -> list[list[float]]:
    return [state["exp_avg"].double().sum().item() for _, state in sorted(optimizer["state"].items())]


def test_earlier_run_is_not_written_over(store: Store, straight: Path) -> None:
    before = (straight / "checkpoints" / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match="is of an earlier run; give --resume"):
        fit(store, FAST, straight)
    assert (straight / "checkpoints" / "checkpoint.pt").read_bytes() == before


def test_without_validation_no_best_is_written_and_it_says_so(write_roi, tmp_path: Path, caplog) -> None:
    import numpy as np

    labels = np.full((64, 64), 2, np.uint8)
    labels[10:40, 10:40] = 1
    source = write_roi("only", labels)
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=64))
    with caplog.at_level(logging.WARNING):
        summary = fit(open_store(tmp_path / "s.zarr"), _with(max_steps=1), tmp_path / "run")
    assert summary["val"] is None
    assert not (tmp_path / "run" / "checkpoints" / "best.pt").exists()
    assert "no validation tile" in caplog.text
    assert "random weights" in caplog.text


def test_init_starts_from_the_given_weights(store: Store, straight: Path, tmp_path: Path) -> None:
    init = straight / "checkpoints" / "checkpoint.pt"
    fit(store, _with(max_steps=1, lr=1e-12, vision_lr=1e-12, init=init, weight_decay=0), tmp_path)
    ours, theirs = load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt"), load_checkpoint(init)
    for name, weight in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], weight, rtol=1e-5, atol=1e-8)


def test_loss_that_is_not_finite_stops_and_names_its_tiles(store: Store, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step \d+, tiles \[\d+, \d+\]: the loss or its gradient is not finite"):
        fit(store, _with(max_steps=3, lr=1e20, vision_lr=1e20, clip_norm=1e30), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_absent_cuda_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        fit(store, _with(device="cuda"), tmp_path)
