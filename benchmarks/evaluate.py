"""Compare the speed of our predictor with a loop over `SAM2ImagePredictor.predict` with one object per call.

    python -m benchmarks.evaluate [--tiles 1] [--objects 8] [--repeats 3]

Both have the same weights (tiny, random) and the same boxes and tiles of a synthetic store. The loop is timed twice:
with the image set once per tile, which is fair, and once per object. All take turns, so that other load affects all
alike. The last line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.sam2_image_predictor import SAM2ImagePredictor

from benchmarks.claims import Claim, hardware, medians, print_claims
from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.points import Prompt
from schemas.store.store import Store, open_store
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.score.metrics import score_masks
from train.transforms.sample import pad_prompts

GOAL_ONCE_A_TILE = 1.1
GOAL_SPEEDUP = 3.0
GOAL_IOU = 0.99


@dataclass(frozen=True)
class Task:
    """One tile and its box prompts."""

    image: NDArray[np.uint8]
    prompts: list[Prompt]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=1)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(hardware())
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as name:
        for side in (1024, 256):
            store = _sample_store(Path(name) / str(side), side)
            tasks = _tasks(store, arguments.tiles, arguments.objects)
            claims += _measure(tasks, side, arguments.repeats)
    print_claims(claims)


def _measure(tasks: list[Task], side: int, repeats: int) -> list[Claim]:
    torch.manual_seed(0)
    model = PromptableSam("tiny", side).eval()
    ours = MaskPredictor(model, torch.device("cpu"))
    theirs = SAM2ImagePredictor(model.sam)
    # Meta's predictor assumes the feature sizes of 1024 px.
    theirs._bb_feat_sizes = [(side // step, side // step) for step in (4, 8, 16)]  # pyright: ignore[reportPrivateUsage]
    ways: dict[str, Callable[[Task], NDArray[np.bool_]]] = {
        "ours, all objects at once": lambda task: _batched(ours, task),
        "predict, image set once per tile": lambda task: _loop(theirs, task, again=False),
        "predict, image set once per object": lambda task: _loop(theirs, task, again=True),
        "image encoder alone": lambda task: _encoded(ours, task),
    }
    found = medians({name: partial(_all, way, tasks) for name, way in ways.items()}, repeats)
    seconds = {name: took / len(tasks) for name, took in found.items()}
    batched, once, again, _ = seconds.values()
    count = len(tasks[0].prompts)
    print(f"\n{side} px, {len(tasks)} tiles, {count} objects per tile")
    for label, took in seconds.items():
        print(f"{label:34}{took:8.2f} s per tile {count / took:8.2f} objects/s")
    pairs = [(_batched(ours, task), _loop(theirs, task, again=False)) for task in tasks]
    iou = np.mean([score_masks(a, b, np.zeros(a.shape[1:], bool)).iou.mean() for a, b in pairs])
    share = np.mean([b.mean() for _, b in pairs])
    print(f"mean IoU of the two's masks {iou:.4f}; they cover {share:.0%} of the pixels")
    return [
        Claim(f"objects/s, ours / predict, image once per tile, {side} px", once / batched, GOAL_ONCE_A_TILE),
        Claim(f"objects/s, ours / predict, image once per object, {side} px", again / batched, GOAL_SPEEDUP),
        Claim(f"mean IoU of ours and predict, {side} px", float(iou), GOAL_IOU),
    ]


def _all(way: Callable[[Task], object], tasks: list[Task]) -> None:
    for task in tasks:
        way(task)


def _encoded(predictor: MaskPredictor, task: Task) -> NDArray[np.bool_]:
    predictor.views(task.image)
    return np.zeros((0, 0, 0), bool)


def _batched(predictor: MaskPredictor, task: Task) -> NDArray[np.bool_]:
    size = task.image.shape[0]
    coords, labels = pad_prompts(task.prompts)
    return predictor.predict(predictor.views(task.image), coords, labels, size).masks(size)


def _loop(predictor: SAM2ImagePredictor, task: Task, *, again: bool) -> NDArray[np.bool_]:
    masks: list[NDArray[np.bool_]] = []
    for number, prompt in enumerate(task.prompts):
        if again or not number:
            predictor.set_image(task.image)
        corners = prompt["point_coords"].reshape(4)
        masks.append(predictor.predict(box=corners, multimask_output=False)[0][0].astype(bool))
    return np.stack(masks)


def _sample_store(folder: Path, side: int) -> Store:
    """Build a store whose tiles have enough objects: one object per connected component."""
    write_sample(folder / "source", rois=2, size_px=2 * side)
    settings = {"size_px": side, "objects": "component", "min_area_px": 64}
    build_store(folder / "source", folder / "s.zarr", BuildConfig.model_validate(settings))
    return open_store(folder / "s.zarr")


def _tasks(store: Store, tiles: int, objects: int) -> list[Task]:
    """Return the tiles with the most objects, and this many boxes of each; boxes repeat if a tile has fewer."""
    counts = np.diff(store.column("tiles/object_offsets"))
    tasks: list[Task] = []
    for index in np.argsort(-counts, kind="stable")[:tiles].tolist():
        prompts = list(store.prompts(index, "box").values())
        tasks.append(Task(store[index].image, [prompts[i % len(prompts)] for i in range(objects)]))
    return tasks


if __name__ == "__main__":
    main()
