"""Train the weights that `--init nano` starts from: `nano`, from random weights, on varied synthetic tissue.

Run it as `python -m benchmarks.nano_start OUT [--steps N] [--rois N]`; OUT receives data, store, run and evaluation.
The same command continues a run that was interrupted. With `--keep`, the best weights of OUT and their card are written
into the package, and nothing is trained. Everything is done with the project's own commands.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from train.backbone.nano_start import NANO_START

BIN = Path(sys.executable).parent

SETTINGS = {
    "model": "nano",
    "image_size": 128,
    "prompt": "mixed",
    "batch_size": 8,
    "max_objects": 8,
    "epochs": 10_000,
    "workers": 1,
    "device": "cpu",
    "report": False,
    "augment": {"rotate_deg": 20.0, "scale": 0.2, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.02},
    "optimizer": {
        "lr": 1e-3,
        "vision_lr": 1e-3,
        "warmup_steps": 100,
        "layer_decay": 1.0,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "ema_decay": 0.995,
    },
    "loss": {"mask_weight": 5.0, "dice_weight": 5.0},
}


def train(out: Path, rois: int, steps: int) -> None:
    """Write the data, build the store, train and evaluate; steps that are already done are not repeated."""
    data, store, run = out / "data", out / "store.zarr", out / "run"
    _call("bcss-prep", "sample", data, "--rois", rois, "--size", 1024, "--seed", 1000, "--look", "varied")
    _call("bcss-prep", "build", data, "--out", store, "--size", 256, "--objects", "component")
    settings = out / "settings.yaml"
    settings.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    resume = ["--resume"] if (run / "checkpoints" / "checkpoint.pt").exists() else []
    _call("bcss-train", "fit", store, "--out", run, "--config", settings, "--max-steps", steps, *resume)
    _call(
        "bcss-train",
        "evaluate",
        store,
        *("--checkpoint", run / "checkpoints" / "best.pt", "--prompt", "mixed", "--out", out / "evaluation"),
        *("--device", "cpu", "--overwrite"),
    )


def keep(out: Path) -> None:
    """Write the best weights in half precision, and their card, into the package."""
    content = torch.load(out / "run" / "checkpoints" / "best.pt", weights_only=True)
    kept = {key: content[key] for key in ("model_size", "image_size", "patients", "trained_on")}
    kept["model"] = {name: weight.half() for name, weight in content["model"].items()}
    torch.save(kept, NANO_START)
    result = json.loads((out / "evaluation" / "metrics.json").read_bytes())
    rows = [
        f"| {name} | {kind} | {scores['overall']['class_mean']['dice']['value']:.3f} | {scores['overall']['n']} |"
        for name, kinds in result["models"].items()
        for kind, scores in kinds.items()
    ]
    patients = max(scores["overall"]["patients"] for kinds in result["models"].values() for scores in kinds.values())
    size_mb = NANO_START.stat().st_size / 1e6
    side, steps = content["image_size"], content["steps"]
    trained, validated = (len(content["patients"][kind]) for kind in ("trained", "validated"))
    card = f"""# The start `--init nano`

`nano_start.pt` holds the weights of `nano` ({size_mb:.1f} MB, half precision, input of {side} px). They are **not**
Meta's weights: training began from random ones, and used only synthetic tissue. The model has never seen real tissue.
It is meant for demonstrations, tests and laptops, and as a start for small fine-tunings.

* **Made by** `python -m benchmarks.nano_start OUT` and then `python -m benchmarks.nano_start OUT --keep`:
  {steps} steps, with the settings in that script.
* **Data**: `bcss-prep sample --look varied`, {trained} patients for training and {validated} for validation, 1024 px
  per ROI, tiles of 256 px, each connected component an object. Each ROI has its own stain, nuclei and region sizes.
  The patients' names begin with N, and no other data of this project has them.
* **License**: Apache-2.0, as this project.

Scores on the {patients} synthetic patients of the test split, as class mean of Dice:

| model | prompt | Dice | objects |
| --- | --- | --- | --- |
{chr(10).join(rows)}
"""
    NANO_START.with_suffix(".md").write_text(card, encoding="utf-8")


def _call(program: str, *arguments: object) -> None:
    subprocess.run([str(BIN / program), *map(str, arguments)], check=True)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rois", type=int, default=120)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--keep", action="store_true", help="write the weights of OUT into the package")
    arguments = parser.parse_args()
    if arguments.keep:
        keep(arguments.out)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(arguments.out, arguments.rois, arguments.steps)


if __name__ == "__main__":
    main()
