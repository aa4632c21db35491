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
FRAMES = 4


@pytest.fixture(scope="module")
def scene(module_path: Path) -> Store:
    """One synthetic sequence, which is one window. An object of it hides in frame 2 and comes back in frame 3."""
    write_scenes(module_path / "source", FRAMES, sequences=1, size_px=128)
    settings = BuildConfig(size_px=128, sequences=True, layout="resize")
    build_store(module_path / "source", module_path / "scene.zarr", settings)
    return open_store(module_path / "scene.zarr")


def _train(store: Store, steps: int) -> tuple[PreparedRun, list[float]]:
    """Return the run after some steps, and the loss of each step. `fit` would save after each, which is an epoch."""
    flags = {
        "init": "nano",
        "image_size": 128,
        "frames": FRAMES,
        "prompt": "mask",
        "batch_size": 1,
        "max_objects": 5,
        "max_steps": steps,
        "epochs": steps,
        "augment.orientation": False,
        "optimizer.lr": 5e-4,
        "optimizer.vision_lr": 2e-4,
        "optimizer.warmup_steps": 10,
        "optimizer.final_lr_fraction": 0.3,
        "device": "cpu",
        "workers": 0,
    }
    config, losses = read_config(None, flags), list[float]()
    prepared = prepare_run(store, config, Machine(World(), CPU, StopRequest()), None)
    for step in range(steps):
        loaded = prepared.batches.load(step)
        assert loaded is not None
        set_learning_rates(prepared.run.optimizer, step, steps, config.optimizer)
        losses.append(prepared.train_step(loaded.batches)[0]["loss"])
    return prepared, losses


def test_the_loss_falls(scene: Store) -> None:
    _, losses = _train(scene, 20)
    assert max(losses[-5:]) < 0.5 * losses[0]


@pytest.mark.slow
def test_an_overfitted_run_follows_the_first_mask(scene: Store) -> None:
    prepared, losses = _train(scene, 400)
    scores = summarize(score_sequences(scene, {"run": MaskPredictor(prepared.run.model, CPU)}, "all", "mask"))
    j = {name: found["overall"]["j"] for name, found in scores.items()}
    assert losses[-1] < 0.05 * losses[0]
    assert j["run"] >= 0.8 > 0.6 > j["baseline:mask"]
