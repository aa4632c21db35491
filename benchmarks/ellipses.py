"""Count how many known objects of a slide `bcss-train predict --automatic` finds: `python -m benchmarks.ellipses`.

A synthetic pyramidal slide with 500 separate ellipses is cut into tiles, and the model nano is overfitted on them with
clicks. The script counts ellipses that an object matches with an IoU of 0.7 or more, and ellipses that two objects
match.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from prep.annotation.runs import decoded

SIDE_PX, TILE_PX, STRIDE_PX, IMAGE_PX = 3072, 256, 192, 128
ELLIPSES, CELL_PX = 500, 120
MIN_IOU = 0.7
LR = 1e-3

SETTINGS = """
optimizer: {layer_decay: 1.0, clip_norm: 1.0, warmup_steps: 50}
"""


def draw(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw the slide, uint8 (H, W, 3), and the number of the ellipse at each pixel, uint16 (H, W)."""
    generator = np.random.default_rng(seed)
    numbers = np.zeros((SIDE_PX, SIDE_PX), np.uint16)
    drawn = 0
    while drawn < ELLIPSES:
        x, y = (int(value) for value in generator.integers(0, SIDE_PX - CELL_PX, 2))
        axes = int(generator.integers(18, 44)), int(generator.integers(18, 44))
        cell = np.zeros((CELL_PX, CELL_PX), np.uint8)
        cv2.ellipse(cell, (CELL_PX // 2, CELL_PX // 2), axes, float(generator.uniform(0, 180)), 0, 360, 1, -1)
        place = numbers[y : y + CELL_PX, x : x + CELL_PX]
        if not place[cv2.dilate(cell, np.ones((9, 9), np.uint8)) > 0].any():
            drawn += 1
            place[cell > 0] = drawn
    image = np.where(numbers[..., None] > 0, (120, 60, 150), (232, 190, 214)).astype(np.float32)
    image += generator.normal(0, 6, image.shape).astype(np.float32)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.8), 0, 255).astype(np.uint8), numbers


def write_slide(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a tiled pyramid with a resolution of 0.5 um per pixel that OpenSlide can read."""
    with tifffile.TiffWriter(path) as writer:
        for factor in (1, 2, 4, 8):
            size = SIDE_PX // factor, SIDE_PX // factor
            writer.write(
                np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8),
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                resolution=(20000, 20000),
                resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1),
            )


def score(coco: Path, numbers: NDArray[np.uint16]) -> tuple[int, int, int]:
    """Count the ellipses that are found, those that are found twice, and all objects."""
    areas, covered = np.bincount(numbers.ravel()), np.zeros(ELLIPSES + 1, int)
    annotations = json.loads(coco.read_text())["annotations"]
    for annotation in annotations:
        x, y, width, height = annotation["bbox"]
        runs = np.array(decoded(annotation["segmentation"]["counts"]))
        whole = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(SIDE_PX, SIDE_PX).T
        mask = whole[y : y + height, x : x + width]
        common = np.bincount(numbers[y : y + height, x : x + width][mask], minlength=ELLIPSES + 1)
        common[0] = 0
        number = int(common.argmax())
        union = areas[number] + np.count_nonzero(mask) - common[number]
        covered[number] += common[number] >= MIN_IOU * union
    return int((covered[1:] > 0).sum()), int((covered[1:] > 1).sum()), len(annotations)


def run(module: str, *arguments: object) -> None:
    """Run a command of the project."""
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Draw, train, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--grid", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, numbers = draw()
        for kind, pixels in (("images", image), ("masks", numbers)):
            (folder / kind).mkdir()
            Image.fromarray(pixels).save(folder / kind / "slide_MPP-0.5.png")
        write_slide(folder / "slide.tif", image)
        store, out = folder / "e.zarr", folder / "run"
        tiles = ("--size", TILE_PX, "--stride", STRIDE_PX, "--objects", "instance", "--split-fractions", "1,0,0")
        run("prep.cli", "build", folder, "--out", store, *tiles)
        begun = time.monotonic()
        (folder / "settings.yaml").write_text(SETTINGS)
        flags = ("--init", "nano", "--image-size", IMAGE_PX, "--prompt", "random", "--lr", LR, "--vision-lr", LR)
        steps = ("--max-steps", arguments.steps, "--epochs", arguments.steps, "--workers", 1, "--no-report")
        length = (*steps, "--batch-size", 4, "--max-objects", 8, "--config", folder / "settings.yaml")
        run("train.cli", "fit", store, "--out", out, *flags, *length)
        trained = time.monotonic()
        found = ("--automatic", "--grid", arguments.grid, "--stability-threshold", 0.8, "--format", "coco")
        checkpoint = out / "checkpoints" / "checkpoint.pt"
        run("train.cli", "predict", checkpoint, folder / "slide.tif", *found, "--out", folder / "found")
        seconds = time.monotonic() - trained
        right, twice, objects = score(folder / "found" / "slide.coco.json", numbers)
    print(f"trained                {arguments.steps} steps in {trained - begun:.0f} s")
    print(f"ellipses found         {right} of {ELLIPSES} at an IoU of {MIN_IOU}")
    print(f"ellipses found twice   {twice}")
    print(f"objects                {objects}, parts of ellipses among them")
    print(f"time                   {seconds:.0f} s, {SIDE_PX**2 / seconds / 1e6:.2f} Mpx/s")
    print(json.dumps({"found": right, "twice": twice, "objects": objects, "steps": arguments.steps}))


if __name__ == "__main__":
    main()
