"""Compare `ImagePredictor` with plain loops over Meta's predictor and mask generator, and measure memory on slides.

    python -m benchmarks.predict [--side 1024] [--objects 8] [--grid 16] [--repeats 3]
    python -m benchmarks.predict --slides 20000,40000 --checkpoint FILE

Both programs have the same weights (tiny, random). The loop for boxes sets the image once per tile; the mask generator
has the same settings as ours. All take turns, so that other load affects all alike. With `--slides`, synthetic slides
of these sides are searched for all objects in windows of 1024 px, each in a process of its own, and the largest memory
of that process is printed. The last line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.sam2_image_predictor import SAM2ImagePredictor

from benchmarks.claims import Claim, hardware, medians, print_claims
from prep.sample.flat_tissue import draw_flat
from train.model.promptable import PromptableSam
from train.predict import ImagePredictor
from train.predict.automatic import AutomaticOptions

TILES = 2
"""Windows along each side of the image."""

TEXTURE_PX, SLIDE_TILE_PX, WINDOW_PX = 2048, 512, 1024
FEW_CLICKS = 4
GOAL_RATIO = 1.0
GOAL_IOU = 0.999
GOAL_SLIDE_MB = 4096.0
GOAL_GROWTH = 1.1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="side of the network's input and of a window, in pixels")
    parser.add_argument("--objects", type=int, default=8, help="boxes in a window")
    parser.add_argument("--grid", type=int, default=16, help="clicks along each side of a window")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slides", default="", help="sides of slides in pixels, such as 20000,40000")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint for --slides")
    arguments = parser.parse_args()
    print(hardware())
    if arguments.slides:
        sides = [int(side) for side in arguments.slides.split(",")]
        print_claims(_measure_slides(sides, arguments.checkpoint))
        return
    torch.manual_seed(0)
    model = PromptableSam("tiny", arguments.side).eval()
    image, _ = draw_flat(TILES * arguments.side, TILES * arguments.side, np.random.default_rng(0))
    claims = _measure_boxes(model, image, arguments.objects, arguments.repeats)
    claims += _measure_automatic(model, image[: arguments.side, : arguments.side], arguments.grid, arguments.repeats)
    print_claims(claims)


def _meta(model: PromptableSam) -> SAM2ImagePredictor:
    predictor = SAM2ImagePredictor(model.sam)
    # Meta's predictor assumes the feature sizes of 1024 px.
    predictor._bb_feat_sizes = [(model.image_size // step,) * 2 for step in (4, 8, 16)]  # pyright: ignore
    return predictor


def _measure_boxes(model: PromptableSam, image: NDArray[np.uint8], objects: int, repeats: int) -> list[Claim]:
    """Compare boxes in all windows of an image; each box lies in the middle of a window, so that windows are tiles."""
    side = model.image_size
    draw = np.random.default_rng(1)
    boxes: list[list[int]] = []
    for top in range(0, image.shape[0], side):
        for left in range(0, image.shape[1], side):
            middle = np.array([left + side // 2, top + side // 2])
            centers = middle + draw.integers(-side // 8, side // 8, (objects, 2))
            halves = draw.integers(side // 32, side // 12, (objects, 2))
            boxes += np.concatenate([centers - halves, centers + halves], 1).tolist()
    ours, theirs = ImagePredictor(model, torch.device("cpu")), _meta(model)

    def loop() -> NDArray[np.bool_]:
        masks = np.zeros((len(boxes), *image.shape[:2]), bool)
        for number, (x0, y0, x1, y1) in enumerate(boxes):
            left, top = x0 // side * side, y0 // side * side
            tile = slice(top, top + side), slice(left, left + side)
            if number % objects == 0:
                theirs.set_image(image[tile])
            box = np.array([x0 - left, y0 - top, x1 - left, y1 - top])
            masks[(number, *tile)] = theirs.predict(box=box, multimask_output=False)[0][0].astype(bool)
        return masks

    took = medians({"ours": lambda: ours.predict(image, boxes=boxes), "loop": loop}, repeats)
    first, second = ours.predict(image, boxes=boxes).masks, loop()
    union = (first | second).sum((1, 2))
    iou = float(np.mean(((first & second).sum((1, 2)) + 1e-9) / (union + 1e-9)))
    print(f"\n{len(boxes)} boxes in {len(boxes) // objects} windows of {side} px")
    for name, seconds in took.items():
        print(f"{name:8}{seconds:8.2f} s {len(boxes) / seconds:8.2f} prompts/s")
    print(f"mean IoU of the two's masks {iou:.4f}; they cover {second.mean():.0%} of the pixels")
    return [
        Claim(
            f"prompts/s, ours / loop with the image set once per tile, {side} px",
            took["loop"] / took["ours"],
            GOAL_RATIO,
        ),
        Claim(f"mean IoU of ours and the loop, {side} px", iou, GOAL_IOU),
    ]


def _measure_automatic(model: PromptableSam, tile: NDArray[np.uint8], grid: int, repeats: int) -> list[Claim]:
    """Compare automatic masks of one window with the same settings."""
    side = model.image_size
    ours = ImagePredictor(model, torch.device("cpu"))
    # Random weights give low quality estimates; without a filter on them, both programs process all candidates.
    options = AutomaticOptions(grid, iou_threshold=0.0, stability_threshold=0.0)
    theirs = _generator(model, options)
    took = medians({"ours": lambda: ours.automatic(tile, options), "generator": lambda: theirs.generate(tile)}, repeats)
    print(f"\nall objects of a window of {side} px, {grid} x {grid} clicks")
    for name, seconds in took.items():
        print(f"{name:12}{seconds:8.2f} s {tile.shape[0] * tile.shape[1] / seconds / 1e6:8.3f} Mpx/s")
    # Masks of random weights are alike, and would be dropped as duplicates, so all of a few clicks are compared.
    few = replace(options, clicks_per_side=FEW_CLICKS, nms_iou=1.0)
    first, second = ours.automatic(tile, few).masks, _generator(model, few).generate(tile)
    iou = _matched_iou(list(first), [item["segmentation"] for item in second])
    print(f"{len(first)} and {len(second)} masks of {FEW_CLICKS} x {FEW_CLICKS} clicks, mean IoU {iou:.4f}")
    claim = f"Mpx/s, ours / SAM2AutomaticMaskGenerator, {side} px"
    return [
        Claim(claim, took["generator"] / took["ours"], GOAL_RATIO),
        Claim(f"mean IoU of automatic masks of both, {side} px", iou, GOAL_IOU),
    ]


def _generator(model: PromptableSam, options: AutomaticOptions) -> SAM2AutomaticMaskGenerator:
    generator = SAM2AutomaticMaskGenerator(
        model.sam,
        points_per_side=options.clicks_per_side,
        pred_iou_thresh=options.iou_threshold,
        stability_score_thresh=options.stability_threshold,
        box_nms_thresh=options.nms_iou,
        multimask_output=True,
    )
    generator.predictor = _meta(model)
    return generator


def _matched_iou(first: list[NDArray[np.bool_]], second: list[NDArray[np.bool_]]) -> float:
    """Return the mean IoU of masks, each matched with its best free counterpart; a mask without one counts as 0."""
    left, total = list(second), 0.0
    for mask in sorted(first, key=np.count_nonzero):
        ious = [np.count_nonzero(mask & other) / max(np.count_nonzero(mask | other), 1) for other in left]
        if ious:
            best = int(np.argmax(ious))
            total += float(ious[best])
            del left[best]
    return total / max(len(first), len(second), 1)


def _measure_slides(sides: list[int], checkpoint: Path) -> list[Claim]:
    """Search slides of several sizes, and compare the largest memory of each process."""
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wide = _in_wide_windows(checkpoint, folder / "wide.pt")
        for side in sides:
            slide = folder / f"slide{side}.tif"
            write_slide(slide, side)
            flags = ["--automatic", "--grid", "4", "--iou-threshold", "0.5", "--stability-threshold", "0.5"]
            command = ["-m", "train.cli", "predict", str(wide), str(slide), "--out", str(folder / f"out{side}"), *flags]
            begun = time.monotonic()
            process = os.posix_spawn(sys.executable, [sys.executable, *command, "--device", "cpu"], os.environ)
            _, status, usage = os.wait4(process, 0)
            if status:
                raise SystemExit(f"predict failed on a slide of {side} px")
            seconds = time.monotonic() - begun
            peaks.append(usage.ru_maxrss / 1024)
            print(f"{side:6} px {seconds:8.0f} s {side**2 / seconds / 1e6:8.2f} Mpx/s {peaks[-1]:8.0f} MB", flush=True)
            slide.unlink()
    return [
        Claim(f"largest memory at {sides[-1]} px, MB", peaks[-1], GOAL_SLIDE_MB, at_most=True),
        Claim(f"largest memory, {sides[-1]} px / {sides[0]} px", peaks[-1] / peaks[0], GOAL_GROWTH, at_most=True),
    ]


def _in_wide_windows(checkpoint: Path, path: Path) -> Path:
    """Copy a checkpoint with windows of `WINDOW_PX`, so that few windows cover a large slide."""
    content = torch.load(checkpoint, weights_only=True)
    content["trained_on"] = {"tile_size_px": WINDOW_PX, "mpp_um": 0.25}
    torch.save({key: content[key] for key in ("model", "model_size", "image_size", "trained_on")}, path)
    return path


def write_slide(path: Path, side: int) -> None:
    """Write a tiled pyramid of tissue that repeats, with a resolution of 0.25 um per pixel."""
    texture, _ = draw_flat(TEXTURE_PX, TEXTURE_PX, np.random.default_rng(0))
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for factor in (1, 4, 16):
            size = TEXTURE_PX // factor
            small = np.asarray(cv2.resize(texture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
            writer.write(
                _tiles(np.tile(small, (max(SLIDE_TILE_PX // size, 1),) * 2 + (1,)), side // factor),
                shape=(side // factor, side // factor, 3),
                dtype=np.uint8,
                tile=(SLIDE_TILE_PX, SLIDE_TILE_PX),
                photometric="rgb",
                compression="jpeg",
                resolution=(40000 / factor, 40000 / factor),
                resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1),
            )


def _tiles(texture: NDArray[np.uint8], side: int) -> Iterator[NDArray[np.uint8]]:
    across = -(-side // SLIDE_TILE_PX)
    for row in range(across):
        for column in range(across):
            y, x = row * SLIDE_TILE_PX % len(texture), column * SLIDE_TILE_PX % len(texture)
            yield texture[y : y + SLIDE_TILE_PX, x : x + SLIDE_TILE_PX]


if __name__ == "__main__":
    main()
