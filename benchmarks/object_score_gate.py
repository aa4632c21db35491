"""Show what the gate by the object score does in training: the same run with and without it.

    python -m benchmarks.object_score_gate [--steps 60] [--seeds 3]
    python -m benchmarks.object_score_gate --frames 4 --steps 200

SAM 2's own forward pass replaces the mask of an object whose score is not positive by the constant -1024. On single
images, all objects are present, so each such replacement is an error of the score, but it raises the loss of the mask.
There, this project trains without the gate. Over frames, an object may be hidden, and the gate decides what the memory
stores; there, this project trains with it, and J scores the first masks that the trained model follows through the
sequence, always with the gate. A small model starts from random weights on synthetic data. The last line is JSON: a
list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims import Claim, print_claims
from benchmarks.whole_run import fit_whole
from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from prep.scene.folders import write_scenes
from schemas.store.store import Store, open_store
from train.config import FitConfig, read_config
from train.fit import forward as forward_module
from train.fit import state as run_module
from train.fit.optimizer import set_learning_rates
from train.fit.prepare import prepare_run
from train.loss.pixel_terms import upsample
from train.loss.prediction import MaskPrediction
from train.model.memory import FrameAnswer, FrameMemory
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.propagate.score import score_sequences, summarize
from train.runtime.distributed import World
from train.runtime.machine import Machine
from train.runtime.run_log import read_steps
from train.runtime.stop import StopRequest

SCENE_FRAMES = 8
FLAGS_ON_FRAMES = {
    "model": "nano",
    "image_size": 128,
    "prompt": "mask",
    "batch_size": 1,
    "workers": 0,
    "augment.orientation": False,
    "optimizer.lr": 5e-4,
    "optimizer.vision_lr": 2e-4,
}
"""All parts start from random weights, so the image encoder needs a high rate, too."""

CPU = torch.device("cpu")

NO_OBJECT = -1024.0


class GatedSam(PromptableSam):
    """The model with SAM 2's gate."""

    def decode(self, *given: Any, **named: Any) -> MaskPrediction:
        """Decode, and blank the masks of objects that the object score calls absent."""
        found = super().decode(*given, **named)
        shown = (found.presence_logits > 0)[:, :, None, None]
        return MaskPrediction(torch.where(shown, found.logits, NO_OBJECT), found.ious, found.presence_logits)


class UngatedMemory(FrameMemory):
    """The memory of frames whose masks are not gated. Pointers and stored memories still use the object score."""

    def answer(self, *given: Any, **named: Any) -> FrameAnswer:
        """Decode, and take the masks as they leave the decoder."""
        decoded: list[Tensor] = []
        hook = self._sam.sam_mask_decoder.register_forward_hook(lambda _module, _given, found: decoded.append(found[0]))
        answer = super().answer(*given, **named)
        hook.remove()
        ious, presence = answer.prediction.ious, answer.prediction.presence_logits
        best = decoded[0][torch.arange(len(ious)), ious.argmax(1)][:, None]
        full = upsample(best, *answer.best_full.shape[-2:])
        return replace(answer, prediction=MaskPrediction(decoded[0], ious, presence), best=best, best_full=full)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=1, help="frames in a window; 1 trains on images")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    worst: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name:
        runs = _runs_on_frames(arguments.frames) if arguments.frames > 1 else _runs_on_images(Path(name))
        for seed in range(arguments.seeds):
            for gated in (False, True):
                losses, score = runs(Path(name), seed, arguments.steps, gated)
                worst[gated].append(max(losses))
                last = statistics.mean(losses[-10:])
                way = "gated" if gated else "plain"
                print(f"seed {seed} {way}: worst {max(losses):10.2f}, last ten {last:8.2f}{score}", flush=True)
    plain, gated = (statistics.median(worst[key]) for key in (False, True))
    print_claims([Claim("worst loss, gated / plain", gated / plain, 1.0)])


Runs = Callable[[Path, int, int, bool], tuple[list[float], str]]
"""Takes a folder, a seed, a number of steps and whether to use the gate; returns the losses, and the scores as text."""


def _runs_on_images(folder: Path) -> Runs:
    write_sample(folder / "source", rois=6, size_px=512)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=128))
    store = open_store(folder / "s.zarr")
    return lambda out, seed, steps, gated: (_losses(store, out / f"run{seed}{gated}", seed, steps, gated=gated), "")


def _runs_on_frames(frames: int) -> Runs:
    """Each seed draws the weights, and one sequence of eight frames on which they are trained."""

    def run(folder: Path, seed: int, steps: int, gated: bool) -> tuple[list[float], str]:
        forward_module.FrameMemory = FrameMemory if gated else UngatedMemory
        source, path = folder / f"scene{seed}", folder / f"scene{seed}.zarr"
        if not path.exists():
            write_scenes(source, SCENE_FRAMES, sequences=1, size_px=128, seed=seed)
            build_store(source, path, BuildConfig(size_px=128, sequences=True, layout="resize"))
        store = open_store(path)
        flags = {"frames": frames, "seed": seed, "max_steps": steps, "epochs": steps}
        config = read_config(None, {**FLAGS_ON_FRAMES, **flags})
        prepared, losses = prepare_run(store, config, Machine(World(), CPU, StopRequest()), None), list[float]()
        for step in range(steps):
            loaded = prepared.batches.load(step)
            assert loaded is not None
            set_learning_rates(prepared.run.optimizer, step, steps, config.optimizer)
            losses.append(prepared.train_step(loaded.batches)[0]["loss"])
        scores = summarize(score_sequences(store, {"run": MaskPredictor(prepared.run.model, CPU)}, "all", "mask"))
        run_j, copied_j = (scores[name]["overall"]["j"] for name in ("run", "baseline:mask"))
        return losses, f", J {run_j:.3f} (first mask copied {copied_j:.3f})"

    return run


def _losses(store: Store, out: Path, seed: int, steps: int, *, gated: bool) -> list[float]:
    run_module.PromptableSam = GatedSam if gated else PromptableSam  # pyright: ignore[reportPrivateImportUsage]
    config = FitConfig(
        image_size=128, prompt="centroid", max_steps=steps, epochs=1000, workers=0, seed=seed, device="cpu"
    )
    fit_whole(store, config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 3e-4})}), out)
    return [record.loss for record in read_steps(out)]


if __name__ == "__main__":
    main()
