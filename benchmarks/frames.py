"""Measure memory and images per second of training on windows of 1, 2, 4 and 8 frames.

    python -m benchmarks.frames [--model nano] [--image-size 128] [--batch-size 1] [--steps 5]

Each number of frames runs in a process of its own, because the largest memory of a process never falls. The windows are
synthetic, with three objects each, and the prompt is a box; every part of the model is trained. On a CPU, the claim
compares CPU time, because other programs change it less. `benchmarks.frame_parts` shows where the time goes. The last
line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from typing import Any

import numpy as np
import torch

from benchmarks.claims import Claim, hardware, print_claims
from train.config import FitConfig
from train.data.collate import Batch, collate
from train.fit.state import RunIdentity, start_run
from train.fit.step import TrainStep
from train.runtime.device import peak_memory_bytes, pick_device
from train.runtime.distributed import World
from train.transforms.geometry import mask_box
from train.transforms.sample import Sample

FRAMES = (1, 2, 4, 8)
OBJECTS = 3
GOAL_GROWTH = 1.15
"""Largest cost of one more frame from 4 to 8 frames, as a multiple of that from 2 to 4; 1 is linear in T."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--image-size", type=int, default=128, help="side of the network's input, in pixels")
    parser.add_argument("--batch-size", type=int, default=1, help="windows in a batch")
    parser.add_argument("--steps", type=int, default=5, help="measured steps")
    settings = vars(parser.parse_args())
    print(hardware())
    context = multiprocessing.get_context("spawn")
    found: dict[int, tuple[float, float, float]] = {}
    for frames in FRAMES:
        with context.Pool(1) as pool:
            found[frames] = pool.apply(measure, (settings, frames))
        seconds, cpu_seconds, memory = found[frames]
        rate, times = settings["batch_size"] * frames / seconds, (1000 * seconds, 1000 * cpu_seconds)
        print(f"T = {frames}: {rate:6.1f} images/s, {times[0]:7.1f} ms per step, ", end="")
        print(f"{times[1]:7.1f} ms of CPU time, {memory / 1e6:7.0f} MB", flush=True)
    print_claims([_growth(found, 0 if pick_device("auto").type == "cuda" else 1, "time"), _growth(found, 2, "memory")])


def measure(settings: dict[str, Any], frames: int) -> tuple[float, float, float]:
    """Return the median seconds and CPU seconds of a step, and the largest memory of the process or GPU in bytes."""
    config = FitConfig.model_validate(
        {
            "model": settings["model"],
            "image_size": settings["image_size"],
            "batch_size": settings["batch_size"],
            "frames": frames,
            "prompt": "box",
        }
    )
    device = pick_device("auto")
    run = start_run(config, RunIdentity("", config.batch_size, 1), device)
    step = TrainStep(run.model, run.optimizer, config, World(), device)
    batch = drifting_batch(config)
    took: list[tuple[float, float]] = []
    for _ in range(settings["steps"] + 2):
        began, cpu_began = time.perf_counter(), time.process_time()
        step([batch])
        took.append((time.perf_counter() - began, time.process_time() - cpu_began))
    seconds, cpu_seconds = np.median(took[2:], axis=0).tolist()
    return seconds, cpu_seconds, float(peak_memory_bytes(device))


def drifting_batch(config: FitConfig) -> Batch:
    """Make windows in which three squares drift over noise."""
    generator = torch.Generator().manual_seed(0)
    side = config.image_size

    def frame(number: int) -> Sample:
        segments = torch.zeros(OBJECTS, side, side, dtype=torch.bool)
        for row in range(OBJECTS):
            left, top = side // 8 + row * side // 4 + number, side // 4 + 2 * number
            segments[row, top : top + side // 6, left : left + side // 6] = True
        boxes = torch.stack([mask_box(segment).reshape(2, 2).float() for segment in segments])
        has_prompt = not number
        return Sample(
            tile_index=number,
            image=torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=generator).permute(2, 0, 1),
            segments=segments,
            ignore=torch.zeros(side, side, dtype=torch.bool),
            point_coords=boxes if has_prompt else boxes[:, :0],
            point_labels=torch.tensor([[2, 3]], dtype=torch.int32).repeat(OBJECTS, 1)[:, : 2 if has_prompt else 0],
            object_ids=torch.arange(OBJECTS),
            class_ids=torch.ones(OBJECTS, dtype=torch.int64),
            may_hide=not has_prompt,
            later=tuple(frame(later) for later in range(1, config.frames)) if has_prompt else (),
        )

    return collate([frame(0) for _ in range(config.batch_size)])


def _growth(found: dict[int, tuple[float, float, float]], place: int, name: str) -> Claim:
    """Compare the cost of one more frame from 4 to 8 frames with that from 2 to 4."""
    before, after = (found[4][place] - found[2][place]) / 2, (found[8][place] - found[4][place]) / 4
    value = after / before
    return Claim(f"{name} of one more frame at 8 frames, as a multiple of that at 4", value, GOAL_GROWTH, at_most=True)


if __name__ == "__main__":
    main()
