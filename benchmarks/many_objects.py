"""Measure peak memory and seconds of `build` and of `evaluate --stitch` by the number of objects in a tile.

    python -m benchmarks.many_objects [--rows 10 40] [--size 1024] [--classes one each]

The tile has a square grid of discs. They are components of one class, or each has its own class, as in a mask of
instances. The scored model has random weights, and marks half of the tile for each object: the masks of a
trained model are smaller. The last line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.claims import Claim, hardware, print_claims

GOAL_GROWTH = 1.5

OBJECTS = {"one": "component", "each": "label"}
"""The kind of objects to build, by whether all discs have one class or each has its own."""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        peak_mb: Peak memory of its process.
        seconds: Seconds from its start to its end.
    """

    peak_mb: float
    seconds: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--classes", choices=tuple(OBJECTS), nargs="+", default=list(OBJECTS))
    arguments = parser.parse_args()
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as name:
        print(f"{'classes':>8}{'objects':>9}{'build':>20}{'evaluate --stitch':>24}", flush=True)
        for classes in arguments.classes:
            found = [_measure(Path(name), classes, rows, arguments.size) for rows in arguments.rows]
            for place, step in enumerate(("build", "evaluate")):
                growth = found[-1][place].peak_mb / found[0][place].peak_mb
                claims.append(Claim(f"peak MB of {step}, most / fewest objects, {classes}", growth, GOAL_GROWTH, True))
    # This comes last, because it imports torch, and a process inherits the peak memory of its parent.
    print(hardware())
    print_claims(claims)


def _measure(folder: Path, classes: str, rows: int, size: int) -> tuple[Cost, Cost]:
    """Build a store and evaluate it."""
    place = folder / f"{classes}_{rows}"
    _write_rois(place, rows, size, classes)
    store, codes = place / "s.zarr", f"1-{rows**2}" if classes == "each" else "1"
    objects = ("--objects", OBJECTS[classes], "--classes", codes, "--split-file", place / "split.csv")
    built = _run("prep.cli", "build", place, "--out", store, "--size", size, *objects)
    fit = ("--model", "nano", "--image-size", size, "--batch-size", 1, "--max-steps", 1, "--no-report")
    _run("train.cli", "fit", store, "--out", place / "run", *fit, "--workers", 0, "--device", "cpu")
    asked = ("--checkpoint", place / "run/checkpoints/checkpoint.pt", "--no-zero-shot", "--prompt", "box", "--stitch")
    scored = _run("train.cli", "evaluate", store, "--out", place / "scores", *asked, "--device", "cpu")
    print(
        f"{classes:>8}{rows**2:9}{built.peak_mb:10.0f} MB{built.seconds:5.1f} s"
        f"{scored.peak_mb:13.0f} MB{scored.seconds:6.0f} s",
        flush=True,
    )
    return built, scored


def _write_rois(folder: Path, rows: int, size: int, classes: str) -> None:
    """Write one ROI to train on and one to score, each of one tile."""
    step = size // rows
    y, x = np.mgrid[:size, :size]
    on_disc = (y % step - step // 2) ** 2 + (x % step - step // 2) ** 2 <= (step // 3) ** 2
    on_disc &= (y < rows * step) & (x < rows * step)
    numbers = 1 + y // step * rows + x // step if classes == "each" else 1
    mask = np.where(on_disc, numbers, 0).astype(np.uint16)
    image = np.where(on_disc[..., None], (120, 60, 140), (230, 200, 220)).astype(np.uint8)
    for kind, pixels in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(parents=True)
        for split in ("train", "test"):
            Image.fromarray(pixels).save(folder / kind / f"{split}.png")
    (folder / "split.csv").write_text("patient,split\ntrain,train\ntest,test\n", encoding="utf-8")


def _run(module: str, *arguments: object) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: The command failed; its output is printed.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        # wait4 gives the peak of this process alone; that of getrusage is over all processes so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            output.seek(0)
            raise SystemExit(output.read().decode(errors="replace"))
    return Cost(usage.ru_maxrss / 1e3, time.perf_counter() - start)


if __name__ == "__main__":
    main()
