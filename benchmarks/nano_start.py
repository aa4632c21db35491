"""Train the weights that `--init nano` starts from: `nano`, from random weights, on synthetic tissue.

Run it as `python -m benchmarks.nano_start OUT`; OUT receives data, stores, runs and evaluation.
The same command continues a run that was interrupted. With `--keep`, the best weights of OUT and their card are written
into the package, and nothing is trained. Everything is done with the project's own commands.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
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
    "loss": {"mask_weight": 5.0, "dice_weight": 5.0},
}
OPTIMIZER = {
    "lr": 1e-3,
    "vision_lr": 1e-3,
    "warmup_steps": 100,
    "layer_decay": 1.0,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    "ema_decay": 0.995,
}
COLORS = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.02}
FIRST = {**SETTINGS, "optimizer": OPTIMIZER, "augment": {**COLORS, "rotate_deg": 20.0, "scale": 0.2}}
SECOND = {
    **SETTINGS,
    # A click of the store lies in the middle of its object; after a free rotation or zoom it often does not.
    "augment": {**COLORS, "stain": 0.2},
    "optimizer": {**OPTIMIZER, "weight_decay": 0.05, "ema_decay": 0.998},
}


CARD_NAMES = {"second/best": "this start", "baseline:zero_shot": "after the first training"}
"""What the card calls the models of the evaluation."""

HELD_ROIS = 20
"""ROIs of each look on which neither training is done."""

STORES = {
    "varied": (),
    # Some patients of its val and test splits are in the first training, so only the held ROIs are scored.
    "both": ("--split-fractions", "0.9,0.04,0.06", "--min-area", 300),
    "held": ("--split-fractions", "0,0,1", "--min-area", 300),
}


def train(out: Path, rois: tuple[int, int], steps: tuple[int, int]) -> None:
    """Write the data, build the stores, train twice and evaluate.

    A second call draws the same data again, and continues the trainings.

    The first training made the start before there were textures, and the second one continues from it.

    Args:
        out: The folder to write to.
        rois: Number of ROIs with flat colors, and with textures.
        steps: Steps of the first and of the second training.
    """
    shutil.rmtree(out / "sources", ignore_errors=True)
    for look, count, seed in (("varied", rois[0], 1000), ("textured", rois[1], 2000)):
        flags = ("--rois", count + HELD_ROIS, "--size", 1024, "--seed", seed, "--look", look)
        _call("bcss-prep", "sample", out / look, *flags)
        _copy_sources(out / look, out / "sources", look, count)
    for name, flags in STORES.items():
        tiles = ("--size", 256, "--objects", "component", *flags)
        _call("bcss-prep", "build", out / "sources" / name, "--out", out / f"{name}.zarr", *tiles)
    _fit(out / "varied.zarr", out / "first", FIRST, steps[0])
    _fit(out / "both.zarr", out / "second", SECOND, steps[1], "--init", out / "first" / "checkpoints" / "best.pt")
    weights = out / "second" / "checkpoints" / "best.pt"
    flags = ("--prompt", "mixed", "--device", "cpu", "--overwrite", "--out", out / "evaluation")
    _call("bcss-train", "evaluate", out / "held.zarr", "--checkpoint", weights, *flags)


def _copy_sources(sample: Path, sources: Path, look: str, count: int) -> None:
    """Copy the first ROIs of a sample to the sources of both trainings, and the others to those that are scored."""
    for file in sorted(sample.glob("*/*.png")):
        number = int(file.stem.split("-")[2][1:])
        for name in (look, "both") if number < count else ("held",):
            copy = sources / name / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _fit(store: Path, run: Path, settings: Mapping[str, object], steps: int, *flags: object) -> None:
    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    _call("bcss-train", "fit", store, "--out", run, "--config", file, "--max-steps", steps, "--resume", *flags)


def keep(out: Path) -> None:
    """Write the best weights in half precision, and their card, into the package."""
    content = torch.load(out / "second" / "checkpoints" / "best.pt", weights_only=True)
    first = torch.load(out / "first" / "checkpoints" / "best.pt", weights_only=True)
    kept = {key: content[key] for key in ("model_size", "image_size", "patients", "trained_on")}
    kept["model"] = {name: weight.half() for name, weight in content["model"].items()}
    torch.save(kept, NANO_START)
    result = json.loads((out / "evaluation" / "metrics.json").read_bytes())
    rows: list[str] = []
    for name, kinds in result["models"].items():
        for kind, scores in kinds.items():
            dice = scores["overall"]["class_mean"]["dice"]["value"]
            rows.append(f"| {CARD_NAMES.get(name, name)} | {kind} | {dice:.3f} | {scores['overall']['n']} |")
    patients = max(scores["overall"]["patients"] for kinds in result["models"].values() for scores in kinds.values())
    size_mb = NANO_START.stat().st_size / 1e6
    side, steps = content["image_size"], content["steps"]
    trained, validated = (set(content["patients"][kind]) for kind in ("trained", "validated"))
    card = f"""# The start `--init nano`

`nano_start.pt` holds the weights of `nano` ({size_mb:.1f} MB, half precision, input of {side} px). They are **not**
Meta's weights: training began from random ones, and used only synthetic tissue. The model has never seen real tissue.
It is meant for demonstrations, tests and laptops, and as a start for small fine-tunings.

* **Made by** `python -m benchmarks.nano_start OUT` and then `python -m benchmarks.nano_start OUT --keep`:
  {first["steps"]} steps on flat colors, then {steps} steps on both kinds of tissue, with the settings in that script.
* **Data**: `bcss-prep sample --look varied` (each ROI has its own stain, nuclei and region sizes) and `--look textured`
  (fibers and cells in two stains, so that a color alone tells no class). {len(trained)} patients for training and
  {len(validated)} for validation, {len(trained & validated)} of them for both, because the two trainings divide the
  patients in different ways. 1024 px per ROI, tiles of 256 px, each connected component an object. The patients' names
  begin with N and T, and no other data of this project has them.
* **License**: Apache-2.0, as this project.

Scores on {patients} other synthetic patients, half of each kind, as class mean of Dice:

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
    parser.add_argument("--rois", type=int, nargs=2, default=(120, 180), help="with flat colors, and with textures")
    parser.add_argument("--steps", type=int, nargs=2, default=(6000, 7000), help="of the first and the second training")
    parser.add_argument("--keep", action="store_true", help="write the weights of OUT into the package")
    arguments = parser.parse_args()
    if arguments.keep:
        keep(arguments.out)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(arguments.out, arguments.rois, arguments.steps)


if __name__ == "__main__":
    main()
