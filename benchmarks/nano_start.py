"""Train the start that `--init nano` uses: `nano` from random weights on synthetic tissue of many looks.

Run it as `python -m benchmarks.nano_start OUT [--steps N] [--rois N]`; OUT receives data, store, run and evaluation.
The same command continues a run that was interrupted. `python -m benchmarks.nano_start OUT --keep` then writes the
weights and their card into the package. Everything is done with the project's own commands.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

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
    """Write the data, build the store, train and score; what is there is kept."""
    data, store, run = out / "data", out / "store.zarr", out / "run"
    _call("bcss-prep", "sample", data, "--rois", rois, "--size", 1024, "--seed", 1000, "--varied")
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


def _call(program: str, *arguments: object) -> None:
    subprocess.run([str(BIN / program), *map(str, arguments)], check=True)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rois", type=int, default=120)
    parser.add_argument("--steps", type=int, default=9000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(arguments.out, arguments.rois, arguments.steps)


if __name__ == "__main__":
    main()
