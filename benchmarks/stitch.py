"""Measure the memory of stitching by the height of a ROI: the sums of its classes, beside the codes that it returns.

    python -m benchmarks.stitch [--width 4096] [--heights 4096 16384]

The tiles of 512 px overlap, and each has three objects of three classes with random logits. No model runs. The last
line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.claims import Claim, hardware, print_claims
from schemas.classes import ClassInfo
from schemas.prompt_kinds import PromptKind
from train.model.predictor import Prediction
from train.output.class_images import ClassImages, Roi
from train.output.stitch import RoiStitcher
from train.score.tile_answer import Answer, Question

SIDE, STRIDE, CLASSES = 512, 384, 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--heights", type=int, nargs=2, default=[4096, 16384])
    arguments = parser.parse_args()
    print(hardware())
    found = [_measure(arguments.width, height) for height in arguments.heights]
    growth = arguments.heights[1] / arguments.heights[0]
    print_claims(
        [Claim(f"peak beside the codes, ROI {growth:.0f} times as high", found[1] / found[0], 1.1, at_most=True)]
    )


def _measure(width: int, height: int) -> float:
    """Return the peak in MB of what stitching allocates beside the codes."""
    classes = [ClassInfo(code=code, name=str(code), color=(code, 0, 0)) for code in range(1, CLASSES + 1)]
    images = ClassImages(classes, {"roi": Roi(width, height)})
    origins = [(x, y) for y in range(0, height - SIDE + 1, STRIDE) for x in range(0, width - SIDE + 1, STRIDE)]
    sizes: list[int] = []

    def receive(_model: str, _kind: PromptKind, _frame_id: str, codes: NDArray[np.uint8 | np.uint16], /) -> None:
        sizes.append(codes.nbytes)

    stitcher = RoiStitcher(images, receive, lambda _frame_id: np.array(origins))
    torch.manual_seed(0)
    logits = torch.randn(CLASSES, 8, 8).repeat_interleave(16, 1).repeat_interleave(16, 2)
    tracemalloc.start()
    start = time.process_time()
    for number, origin_xy in enumerate(origins):
        stitcher(_answer(number, origin_xy, logits))
    stitcher.close()
    took = time.process_time() - start
    peak_mb = (tracemalloc.get_traced_memory()[1] - sizes[0]) / 1e6
    tracemalloc.stop()
    print(
        f"{width} x {height} px: {peak_mb:6.0f} MB beside {sizes[0] / 1e6:4.0f} MB of codes, {took:.1f} s of CPU time"
    )
    return peak_mb


def _answer(number: int, origin_xy: tuple[int, int], logits: torch.Tensor) -> Answer:
    ids, nowhere = np.arange(1, CLASSES + 1, dtype=np.int32), np.zeros((SIDE, SIDE), bool)
    question = Question("box", [], number, "roi", origin_xy, (1.0, 1.0), ids, ids, nowhere)
    return Answer("model", question, np.zeros((CLASSES, SIDE, SIDE), bool), Prediction(logits, torch.ones(CLASSES)))


if __name__ == "__main__":
    main()
