"""Train on halves of real ROIs and score the other halves; then predict the held ROI whole.

    BCSS_REAL_DATA=DATA python -m benchmarks.real_halves OUT [--start nano|random] [--steps 600] [--unseen ROI]
                                                             [--drawn] [--drawn-first STEPS] [--seed 0]

`--start nano` fine-tunes the start that comes with this project; `--start random` trains `tiny` from random weights.

Each of the two ROIs in DATA is cut in two files whose patients have names of their own. Left halves are trained on,
right ones held out. Both halves come from one slide, so this says nothing of other patients or hospitals.
`--unseen ROI` trains on the whole other ROI alone, as much real tissue as two halves, and scores the right half of this
one, in an OUT of its own.
`--drawn` also trains on tissue that is drawn on the masks in DATA whose images are not there. It also adds each
training image a second time with two codes, tumor and other, unless these are its codes already.
`--drawn-first STEPS` trains on such tissue alone before it trains on anything real.
`--seed` sets the seed of both trainings; what is drawn and how halves are cut stays the same.

The weights after each quarter of the steps are scored, so that one can see how the held-out Dice rises; the last ones
count. The boxes of the scored objects are then asked on the whole held ROIs, where windows lie otherwise than the tiles
of the store. The last line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.claims import Claim, hardware, print_claims
from benchmarks.drawn_tissue import OTHER, draw_on_masks, tumor_alone
from benchmarks.whole_run import fit_whole
from schemas.prompt_kinds import PromptKind
from schemas.store.store import open_store
from train.config import read_config
from train.predict import load_predictor
from train.predict.prompted import predict_prompted
from train.predict.settings import PromptOptions
from train.prompts.object_prompt import ObjectPrompt
from train.runtime.run_log import StepRecord
from train.score.answers import tile_prompts, tiles_with_objects
from train.score.baselines import baseline_masks, disc_radius_px
from train.score.metrics import score_masks
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid
from train.transforms.sample import pad_prompts

FOLDERS = {"bcss": "A0D2", "bcss_tumor": "A1G6"}
GOAL_BOX, GOAL_CLICK, GOAL_WHOLE = 0.75, 0.70, 0.03

SIDES = {"train": ("1,0,0", 64), "held": ("0,0,1", 256)}
"""For each side the shares of train, val and test, and the stride of the tiles in pixels.

The goals were set for a stride of 256 px. More training tiles show each object at more places of a tile."""

DRAWN_TIMES, ALONE_TIMES = 4, 8
"""How often each mask without an image is drawn: beside real tissue, and alone."""

KEPT = 4
"""How many weights of a run are scored."""

STARTS = {"nano": {"init": "nano"}, "random": {"model": "tiny"}}
"""Settings of each start."""
# A click lies in the middle of its object. After a free rotation, a zoom or a crop it often does not: none are drawn.
SETTINGS = """
batch_size: 8
max_objects: 8
epochs: 10000
workers: 1
device: cpu
image_size: 128
optimizer:
  {lr: 5.0e-4, vision_lr: 5.0e-4, warmup_steps: 50, layer_decay: 1.0, weight_decay: 0.2, clip_norm: 1.0,
   ema_decay: 0.995}
loss: {mask_weight: 5.0, dice_weight: 5.0}
augment: {brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1, grey: 0.2, stain: 0.7}
report: false
"""


def cut(data: Path, out: Path, unseen: str | None = None) -> None:
    """Write the halves to `out/train` and `out/held`; each half is a patient of its own.

    If a ROI is unseen, the other one is trained on as a whole, and only the right half of the unseen one is held out.
    """
    for side in SIDES:
        rois = {folder: roi for folder, roi in FOLDERS.items() if unseen is None or (roi == unseen) == (side == "held")}
        for kind in ("images", "masks"):
            (out / side / kind).mkdir(parents=True, exist_ok=True)
            for folder, roi in rois.items():
                picture = Image.open(next((data / folder / kind).glob(f"*{roi}*")))
                half = picture.width // 2
                left = half if side == "held" else 0
                right = half if side == "train" and unseen is None else picture.width
                picture.crop((left, 0, right, picture.height)).save(out / side / kind / f"{side}-{roi}.png")
        _write_patients(out / side, {f"{side}-{roi}": f"{side}-{roi}" for roi in rois.values()})


def add_drawn(data: Path, source: Path) -> None:
    """Add drawn tissue to what is trained on, and each image a second time with the codes of tumor and other."""
    patients: dict[str, str] = {}
    for mask in sorted((source / "masks").glob("train-????.png")):
        labels, name = np.asarray(Image.open(mask)), mask.stem
        patients[name] = name
        if OTHER not in labels:
            patients[f"{name}-tumor"] = name
            Image.fromarray(tumor_alone(labels)).save(source / "masks" / f"{name}-tumor.png")
            shutil.copyfile(source / "images" / mask.name, source / "images" / f"{name}-tumor.png")
    _write_patients(source, patients | draw_on_masks(_masks_to_draw_on(data), source, DRAWN_TIMES))


def train_on_drawn(data: Path, out: Path, start: Mapping[str, object], steps: int) -> dict[str, object]:
    """Train a start further, on drawn tissue alone, and return the settings of the start that this gives."""
    for kind in ("images", "masks"):
        (out / "train" / kind).mkdir(parents=True, exist_ok=True)
    _write_patients(out / "train", draw_on_masks(_masks_to_draw_on(data), out / "train", ALONE_TIMES))
    weights = train(build(out, "train"), out, start, steps)
    return {**start, "model": start.get("model", "nano"), "init": str(weights[str(steps)])}


def _masks_to_draw_on(data: Path) -> list[Path]:
    """The right halves of the ROIs that are cut are scored, so nothing is drawn on their masks."""
    return sorted(path for path in data.glob("bcss/masks/*.png") if not any(r in path.name for r in FOLDERS.values()))


def _write_patients(source: Path, patients: dict[str, str]) -> None:
    rows = "".join(f"{name},{patient}\n" for name, patient in patients.items())
    (source / "patients.csv").write_text("frame_id,patient\n" + rows, encoding="utf-8")


def build(source: Path, side: str) -> Path:
    """Build the store of one side: `train` is all training tiles, `held` all test tiles."""
    shares, stride_px = SIDES[side]
    store = source / f"{side}.zarr"
    tiles = ("--size", 512, "--stride", stride_px, "--objects", "component", "--min-area", 1500)
    classes = ("--classes", "1,2,3,4,18,21", "--dataset", "bcss", "--source-mpp", 0.25)
    who = ("--patients", source / side / "patients.csv", "--split-fractions", shares)
    _call("bcss-prep", "build", source / side, "--out", store, *tiles, *classes, *who)
    return store


def whole_roi_dice(source: Path, store_path: Path, checkpoint: Path, objects: Path, model: str) -> NDArray[np.float64]:
    """Ask the boxes of the objects that a model was scored on, on whole ROIs.

    Returns:
        float64 (O, 3): Dice on the whole ROI, Dice in the tile, and whether the object touches the edge of its tile.
    """
    store, predictor = open_store(str(store_path)), load_predictor(checkpoint, "cpu")
    with objects.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model and row["prompt"] == "box"]
    by_roi: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_roi.setdefault(row["frame_id"], []).append(row)
    scores: list[tuple[float, float, bool]] = []
    for roi, wanted in by_roi.items():
        grid = WorkingGrid.of(Picture(np.asarray(Image.open(source / "images" / f"{roi}.png").convert("RGB"))))
        truths = [_truth(store, int(row["tile_index"]), int(row["object_id"])) for row in wanted]
        asked = [
            ObjectPrompt(str(n), (x0 + x, y0 + y, x1 + 1 + x, y1 + 1 + y))
            for n, (_, (x, y), (x0, y0, x1, y1)) in enumerate(truths)
        ]
        found = predict_prompted(predictor, grid, asked, PromptOptions(predictor.window_px, tta=True))
        for row, item, (truth, (x, y), _) in zip(wanted, found, truths, strict=True):
            side = len(truth)
            mask = np.zeros_like(truth) if item is None else item.within((x, y, x + side, y + side))
            dice = 2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum())
            scores.append((dice, float(row["dice"]), row["touches_edge"] == "True"))
    return np.array(scores, np.float64)


def tile_dice(store_path: Path, checkpoint: Path) -> dict[PromptKind, NDArray[np.float64]]:
    """Score all objects of all held-out tiles, where an object that lies in four tiles counts four times.

    The goals were set for these scores. `evaluate` scores each object once.

    Returns:
        For each prompt kind float64 (O, 2): Dice of the model, and that of the filled box or of the disc at the click.
    """
    store, predictor = open_store(str(store_path)), load_predictor(checkpoint, "cpu")
    radius_px = disc_radius_px(store)
    scores: dict[PromptKind, list[NDArray[np.float64]]] = {"box": [], "centroid": []}
    for index in tiles_with_objects(store, "test").tolist():
        record = store[index]
        views, side = predictor.views(record.image, all_eight=True), len(record.image)
        clicks = tile_prompts(store, record, "centroid", negatives=False)
        clicks_xy = np.stack([prompt["point_coords"][0] for prompt in clicks])
        for kind, found in scores.items():
            coords, labels = pad_prompts(tile_prompts(store, record, kind, negatives=False))
            masks = predictor.predict(views, coords, labels, side).masks(side)
            simple = baseline_masks("box" if kind == "box" else "disc", record, clicks_xy, radius_px)
            pairs = [score_masks(each, record.segments, record.ignore).dice for each in (masks, simple)]
            found.append(np.stack(pairs, 1))
    return {kind: np.concatenate(found) for kind, found in scores.items()}


def _truth(store: object, tile: int, object_id: int) -> tuple[np.ndarray, tuple[int, int], tuple[int, int, int, int]]:
    record = store[tile]  # pyright: ignore
    place = record.object_ids.tolist().index(object_id)
    return record.segments[place], record.origin_xy, tuple(record.boxes_xyxy[place].tolist())


def _call(program: str, *arguments: object) -> None:
    subprocess.run([str(Path(sys.executable).parent / program), *map(str, arguments)], check=True)


def train(store: Path, out: Path, start: Mapping[str, object], steps: int) -> dict[str, Path]:
    """Train, or continue a run, and return the weights of each quarter by their step, last ones last."""
    (out / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    config = read_config(out / "settings.yaml", {**start, "max_steps": steps, "save_every_steps": steps // KEPT})
    last, kept = out / "run" / "checkpoints" / "checkpoint.pt", out / "kept"
    kept.mkdir(exist_ok=True)

    def keep(record: StepRecord, _total: int) -> None:
        before = record.step - 1
        if before and before % (steps // KEPT) == 0:
            shutil.copyfile(last, kept / f"{before}.pt")

    fit_whole(open_store(str(store)), config, out / "run", resume=last.exists(), on_step=keep)
    shutil.copyfile(last, kept / f"{steps}.pt")
    steps_kept = sorted(int(path.stem) for path in kept.glob("*.pt"))
    return {str(step): kept / f"{step}.pt" for step in steps_kept}


def evaluate(store: Path, weights: dict[str, Path], out: Path) -> dict[str, dict[str, float]]:
    """Score weights, their start and the baselines; return the mean Dice by model and prompt kind."""
    named = [part for step, path in weights.items() for part in ("--checkpoint", f"{step}={path}")]
    _call("bcss-train", "evaluate", store, *named, "--out", out, "--tta", "--tolerance-um", 0, "--overwrite")
    models = json.loads((out / "metrics.json").read_bytes())["models"]
    return {name: {kind: means["overall"]["dice"] for kind, means in kinds.items()} for name, kinds in models.items()}


def main() -> None:
    """Cut, build, train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", choices=list(STARTS), default="nano")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--unseen", choices=list(FOLDERS.values()), help="score this ROI, train on the other one")
    parser.add_argument("--drawn", action="store_true", help="train also on tissue drawn on masks without images")
    parser.add_argument("--drawn-first", type=int, default=0, metavar="STEPS", help="train on drawn tissue alone first")
    parser.add_argument("--seed", type=int, default=0, help="seed of order, prompts and colors")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    out: Path = arguments.out
    source = out / "halves"
    data = Path(os.environ["BCSS_REAL_DATA"])
    cut(data, source, arguments.unseen)
    if arguments.drawn:
        add_drawn(data, source / "train")
    start: dict[str, object] = {**STARTS[arguments.start], "seed": arguments.seed}
    if arguments.drawn_first:
        start = train_on_drawn(data, out / "drawn", start, arguments.drawn_first)
    weights = train(build(source, "train"), out, start, arguments.steps)
    store = build(source, "held")
    last = str(arguments.steps)
    dice = evaluate(store, weights, out / "evaluation")
    found = whole_roi_dice(source / "held", store, weights[last], out / "evaluation" / "objects.csv", last)
    _print_scores(dice, last, found, tile_dice(store, weights[last]))


def _print_scores(
    dice: dict[str, dict[str, float]],
    last: str,
    whole_rois: NDArray[np.float64],
    tiles: dict[PromptKind, NDArray[np.float64]],
) -> None:
    """Print what `evaluate`, `whole_roi_dice` and `tile_dice` found, and the claims."""
    print(hardware())
    for name, kinds in dice.items():
        print(f"{name:20} box {kinds['box']:.3f}  click {kinds['centroid']:.3f}")
    cut_by_edge = whole_rois[:, 2] > 0
    groups = {"all": whole_rois, "whole in a tile": whole_rois[~cut_by_edge], "cut by a tile": whole_rois[cut_by_edge]}
    for name, rows in groups.items():
        whole, tiled, _ = rows.mean(0)
        print(f"{name:16}{len(rows):4} objects: mean Dice {tiled:.3f} in tiles, {whole:.3f} on whole ROIs")
    for kind, rows in tiles.items():
        own, simple = rows.mean(0)
        print(f"{kind:16}{len(rows):4} objects of all tiles: mean Dice {own:.3f}, box or disc {simple:.3f}")
    whole, tiled, _ = groups["whole in a tile"].mean(0)
    claims: list[Claim] = []
    goals: tuple[tuple[PromptKind, str, float], ...] = (("box", "box", GOAL_BOX), ("centroid", "click", GOAL_CLICK))
    for kind, word, goal in goals:
        of = f"held-out halves, {word}, Dice over"
        claims.append(Claim(f"{of} objects, each once", dice[last][kind], goal))
        claims.append(Claim(f"{of} the objects of all tiles", float(tiles[kind][:, 0].mean()), goal))
    difference = "Dice in tiles minus on whole ROIs, objects that no tile cuts"
    print_claims([*claims, Claim(difference, float(tiled - whole), GOAL_WHOLE, at_most=True)])


if __name__ == "__main__":
    main()
