"""A run on one sequence learns it: the loss falls, and the first mask is followed where a copy of it fails."""

from pathlib import Path

import pytest
import torch

from prep.build import build_store
from prep.config import BuildConfig
from prep.scene.folders import write_scenes
from schemas.store.store import Store, open_store
from train.config import read_config
from train.fit.optimizer import set_learning_rates
from train.fit.prepare import PreparedRun, prepare_run
from train.model.predictor import MaskPredictor
from train.propagate.score import score_sequences, summarize
from train.runtime.distributed import World
from train.runtime.machine import Machine
from train.runtime.stop import StopRequest

CPU = torch.device("cpu")
FRAMES = 8


def _scene(folder: Path, seed: int) -> Store:
    """Return a store of one synthetic sequence, whose objects drift, deform, hide and come back."""
    write_scenes(folder / "source", FRAMES, sequences=1, size_px=128, seed=seed)
    settings = BuildConfig(size_px=128, sequences=True, layout="resize")
    build_store(folder / "source", folder / "scene.zarr", settings)
    return open_store(folder / "scene.zarr")


def _train(store: Store, frames: int, steps: int, **changes: object) -> tuple[PreparedRun, list[float]]:
    """Return the run after some steps, and the loss of each step. `fit` would save after each epoch, a few steps."""
    flags = {
        "init": "nano",
        "image_size": 128,
        "frames": frames,
        "prompt": "mask",
        "batch_size": 1,
        "max_objects": 5,
        "max_steps": steps,
        "epochs": steps,
        "augment.orientation": False,
        "optimizer.lr": 1e-3,
        "optimizer.vision_lr": 4e-4,
        "optimizer.warmup_steps": 10,
        "optimizer.final_lr_fraction": 0.1,
        "device": "cpu",
        "workers": 0,
        **changes,
    }
    config, losses = read_config(None, flags), list[float]()
    prepared = prepare_run(store, config, Machine(World(), CPU, StopRequest()), None)
    for step in range(steps):
        loaded = prepared.batches.load(step)
        assert loaded is not None
        set_learning_rates(prepared.run.optimizer, step, steps, config.optimizer)
        losses.append(prepared.train_step(loaded.batches)[0]["loss"])
    return prepared, losses


def test_the_loss_falls(tmp_path: Path) -> None:
    rates = {"optimizer.lr": 5e-4, "optimizer.vision_lr": 2e-4, "optimizer.final_lr_fraction": 0.3}
    _, losses = _train(_scene(tmp_path, seed=0), 4, 20, **rates)
    assert max(losses[-5:]) < 0.5 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_overfitted_run_follows_the_first_mask(tmp_path: Path, seed: int) -> None:
    """Windows of two frames are enough: the memory carries the masks through all eight."""
    scene = _scene(tmp_path, seed)
    prepared, losses = _train(scene, 2, 500)
    scores = summarize(score_sequences(scene, {"run": MaskPredictor(prepared.run.model, CPU)}, "all", "mask"))
    j = {name: found["overall"]["j"] for name, found in scores.items()}
    assert sum(losses[-10:]) < 0.05 * sum(losses[:10])
    assert j["run"] >= 0.8 > 0.6 > j["baseline:mask"]
