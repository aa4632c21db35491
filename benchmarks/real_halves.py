"""Train on halves of real ROIs and score the other halves; then predict the held ROI whole.

    BCSS_REAL_DATA=DATA python -m benchmarks.real_halves OUT [--start nano|random] [--steps 1200]

`--start nano` fine-tunes the start that comes with this project; `--start random` trains `tiny` from random weights.

Each of the two ROIs in DATA is cut in two files whose patients have names of their own. Left halves are trained on,
right ones held out. Both halves come from one slide, so this says nothing of other patients or hospitals. The weights
of every 300 steps are scored, so that one can see how the held-out Dice rises; the last ones count. The boxes of the
scored objects are then asked on the whole held ROIs, where windows lie otherwise than the tiles of the store. The last
line is JSON: a list of claim, value, goal, met.
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
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.claims import Claim, hardware, print_claims
from schemas.prompt_kinds import PromptKind
from schemas.store.store import open_store
from train.config import read_config
from train.fit.trainer import fit
from train.predict import load_predictor
from train.predict.prompted import predict_asked
from train.predict.settings import PromptOptions
from train.prompts.asked_object import AskedObject
from train.runtime.run_log import StepRecord
from train.score.answers import tile_prompts, tiles_with_objects
from train.score.baselines import baseline_masks, disc_radius_px
from train.score.metrics import score_masks
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid
from train.transforms.sample import pad_prompts

FOLDERS = {"bcss": "A0D2", "bcss_tumor": "A1G6"}
GOAL_BOX, GOAL_CLICK, GOAL_WHOLE = 0.75, 0.70, 0.03

KEEP_EVERY = 300
STARTS = {"nano": {"init": "nano", "image_size": 256}, "random": {"model": "tiny", "image_size": 128}}
"""Settings of each start. `tiny` takes four times as long for a pixel, so its input is smaller."""
SETTINGS = """
batch_size: 8
max_objects: 8
epochs: 10000
workers: 1
device: cpu
optimizer:
  {lr: 5.0e-4, vision_lr: 5.0e-4, warmup_steps: 50, layer_decay: 1.0, weight_decay: 0.01, clip_norm: 1.0,
   ema_decay: 0.99}
loss: {mask_weight: 5.0, dice_weight: 5.0}
augment: {rotate_deg: 45.0, scale: 0.3, crop: 0.7, brightness: 0.2, contrast: 0.2, saturation: 0.2, stain: 0.3}
save_every_steps: 300
report: false
"""


def cut(data: Path, out: Path) -> None:
    """Write the halves with their patients and splits."""
    names: list[str] = []
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True, exist_ok=True)
        for folder, roi in FOLDERS.items():
            picture = Image.open(next((data / folder / kind).glob(f"*{roi}*")))
            half = picture.width // 2
            for side, box in (("train", (0, 0, half)), ("held", (half, 0, picture.width))):
                whole = (box[0], 0, box[-1], picture.height)
                picture.crop(whole).save(out / kind / f"{side}-{roi}.png")
                names.append(f"{side}-{roi}")
    rows = "".join(f"{name},{'train' if name.startswith('train') else 'test'}\n" for name in dict.fromkeys(names))
    (out / "split.csv").write_text("patient,split\n" + rows, encoding="utf-8")
    patients = "".join(f"{name},{name}\n" for name in dict.fromkeys(names))
    (out / "patients.csv").write_text("frame_id,patient\n" + patients, encoding="utf-8")


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
            AskedObject(str(n), (x0 + x, y0 + y, x1 + 1 + x, y1 + 1 + y))
            for n, (_, (x, y), (x0, y0, x1, y1)) in enumerate(truths)
        ]
        found = predict_asked(predictor, grid, asked, PromptOptions(predictor.window_px, tta=True))
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


def train(store: Path, out: Path, start: str, steps: int) -> dict[str, Path]:
    """Train, or continue a run, and return the weights of every 300 steps by their step, last ones last."""
    (out / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    config = read_config(out / "settings.yaml", {**STARTS[start], "max_steps": steps})
    last, kept = out / "run" / "checkpoints" / "checkpoint.pt", out / "kept"
    kept.mkdir(exist_ok=True)

    def keep(record: StepRecord, _total: int) -> None:
        before = record.step - 1
        if before and before % KEEP_EVERY == 0:
            shutil.copyfile(last, kept / f"{before}.pt")

    fit(open_store(str(store)), config, out / "run", resume=last.exists(), on_step=keep)
    shutil.copyfile(last, kept / f"{steps}.pt")
    steps_kept = sorted(int(path.stem) for path in kept.glob("*.pt"))
    return {str(step): kept / f"{step}.pt" for step in steps_kept}


def main() -> None:
    """Cut, build, train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", choices=list(STARTS), default="nano")
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    out: Path = arguments.out
    source, store = out / "halves", out / "halves.zarr"
    cut(Path(os.environ["BCSS_REAL_DATA"]), source)
    tiles = ("--size", 512, "--stride", 256, "--objects", "component", "--min-area", 1500, "--classes", "1,2,3,4,18,21")
    who = ("--patients", source / "patients.csv", "--split-file", source / "split.csv", "--dataset", "bcss")
    _call("bcss-prep", "build", source, "--out", store, *tiles, *who, "--source-mpp", 0.25)
    weights = train(store, out, arguments.start, arguments.steps)
    last = str(arguments.steps)
    named = [part for step, path in weights.items() for part in ("--checkpoint", f"{step}={path}")]
    _call(
        "bcss-train",
        "evaluate",
        store,
        *named,
        "--out",
        out / "evaluation",
        "--tta",
        "--tolerance-um",
        0,
        "--overwrite",
    )
    models = json.loads((out / "evaluation" / "metrics.json").read_bytes())["models"]
    dice = {name: {kind: means["overall"]["dice"] for kind, means in kinds.items()} for name, kinds in models.items()}
    print(hardware())
    for name, kinds in dice.items():
        print(f"{name:20} box {kinds['box']:.3f}  click {kinds['centroid']:.3f}")
    found = whole_roi_dice(source, store, weights[last], out / "evaluation" / "objects.csv", last)
    cut_by_edge = found[:, 2] > 0
    for name, rows in (("all", found), ("whole in a tile", found[~cut_by_edge]), ("cut by a tile", found[cut_by_edge])):
        whole, tiled, _ = rows.mean(0)
        print(f"{name:16}{len(rows):4} objects: mean Dice {tiled:.3f} in tiles, {whole:.3f} on whole ROIs")
    in_tiles = tile_dice(store, weights[last])
    for kind, rows in in_tiles.items():
        own, simple = rows.mean(0)
        print(f"{kind:16}{len(rows):4} objects of all tiles: mean Dice {own:.3f}, box or disc {simple:.3f}")
    whole, tiled, _ = found[~cut_by_edge].mean(0)
    print_claims(
        [
            Claim("held-out halves, box, Dice over objects, each once", dice[last]["box"], GOAL_BOX),
            Claim("held-out halves, click, Dice over objects, each once", dice[last]["centroid"], GOAL_CLICK),
            Claim(
                "held-out halves, box, Dice over the objects of all tiles",
                float(in_tiles["box"][:, 0].mean()),
                GOAL_BOX,
            ),
            Claim(
                "held-out halves, click, Dice over the objects of all tiles",
                float(in_tiles["centroid"][:, 0].mean()),
                GOAL_CLICK,
            ),
            Claim(
                "Dice in tiles minus on whole ROIs, objects that no tile cuts",
                float(tiled - whole),
                GOAL_WHOLE,
                at_most=True,
            ),
        ]
    )


if __name__ == "__main__":
    main()
