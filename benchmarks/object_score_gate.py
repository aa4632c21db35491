"""Show why the object score does not gate masks in training: the same run with and without the gate.

    python -m benchmarks.object_score_gate [--steps 60] [--seeds 3]

SAM 2's own forward pass replaces the mask of an object whose score is not positive by the constant -1024. All objects
here are present, so each such replacement is an error of the score, but it raises the loss of the mask. A small model
starts from random weights on a synthetic store. The last line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.claims import Claim, print_claims
from prep.build import build_store
from prep.config import BuildConfig
from prep.synthetic import write_sample
from schemas.store.store import Store, open_store
from train.config import FitConfig
from train.fit import state as run_module
from train.fit.trainer import fit
from train.loss.prediction import MaskPrediction
from train.model.promptable import ImageFeatures, PromptableSam
from train.runtime.run_log import read_steps

NO_OBJECT = -1024.0


class GatedSam(PromptableSam):
    """The model with SAM 2's gate."""

    def decode(
        self,
        features: ImageFeatures,
        coords: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> MaskPrediction:
        """Decode, and blank the masks of objects that the object score calls absent."""
        found = super().decode(features, coords, labels, mask_logits, has_mask)
        shown = (found.presence_logits > 0)[:, :, None, None]
        return MaskPrediction(torch.where(shown, found.logits, NO_OBJECT), found.ious, found.presence_logits)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    worst: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sample(folder / "source", rois=6, size_px=512)
        build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=128))
        store = open_store(folder / "s.zarr")
        for seed in range(arguments.seeds):
            for gated in (False, True):
                losses = _losses(store, folder / f"run{seed}{gated}", seed, arguments.steps, gated=gated)
                worst[gated].append(max(losses))
                last = statistics.mean(losses[-10:])
                print(f"seed {seed} {'gated' if gated else 'plain'}: worst {max(losses):10.2f}, last ten {last:8.2f}")
    plain, gated = (statistics.median(worst[key]) for key in (False, True))
    print_claims([Claim("worst loss, gated / plain", gated / plain, 1.0)])


def _losses(store: Store, out: Path, seed: int, steps: int, *, gated: bool) -> list[float]:
    run_module.PromptableSam = GatedSam if gated else PromptableSam  # pyright: ignore[reportPrivateImportUsage]
    config = FitConfig(
        image_size=128, prompt="centroid", max_steps=steps, epochs=1000, workers=0, seed=seed, device="cpu"
    )
    fit(store, config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 3e-4})}), out)
    return [record.loss for record in read_steps(out)]


if __name__ == "__main__":
    main()
