"""Measure where a training step on frames spends its time: by part of the model, and by frame.

    python -m benchmarks.frame_parts [--model nano] [--image-size 128] [--steps 12]

Frame 1 reads one memory, frame 2 two, and from frame 7 on each frame reads seven. Times are CPU time of the process, so
other programs count little, and each is the median over the steps. torch's engine computes gradients in the order of
the parts, from last to first, so a mark at the end of each part tells when its gradients begin. The last line is JSON:
a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.claims import Claim, hardware, print_claims
from benchmarks.frames import FRAMES, GOAL_GROWTH, drifting_batch
from train.config import FitConfig
from train.fit import step as step_module
from train.fit.state import RunIdentity, start_run
from train.fit.step import TrainStep
from train.runtime.distributed import World

ENCODER, ATTENTION, DECODER, MEMORY, LOSS, REST = PARTS = (
    "image encoder",
    "memory attention",
    "mask decoder",
    "memory encoder",
    "loss",
    "rest",
)
"""The rest is the update of the weights, and the features that are copied for each object."""

METHODS = {
    "_prepare_memory_conditioned_features": ATTENTION,
    "_forward_sam_heads": DECODER,
    "_encode_new_memory": MEMORY,
}

Times = dict[tuple[str, int], float]
"""Milliseconds of one step by part and frame. The frame is -1 for a part that sees all frames at once."""


class Clock:
    """Adds the CPU time of a step to the part that runs, forward and backward."""

    def __init__(self) -> None:
        self.times: Times = defaultdict(float)
        self.part = (REST, -1)
        self.frame = 0
        self._since = time.process_time()

    def switch(self, part: tuple[str, int]) -> None:
        """Add the time since the last switch to the part that ran, and begin another one."""
        now = time.process_time()
        self.times[self.part] += 1000 * (now - self._since)
        self.part, self._since = part, now

    def record(self, owner: object, name: str, part: str) -> None:
        """Replace a method by one that is timed, whose results are marked."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            self.frame = named.get("frame_idx", self.frame)
            before, own = self.part, (part, -1 if part in (ENCODER, LOSS) else self.frame)
            self.switch(own)
            found = self._marked(method(*arguments, **named), own)
            # The gradients of the loss follow it at once, and they belong to it.
            self.switch(own if part == LOSS else before)
            return found

        setattr(owner, name, timed)

    def _marked(self, found: Any, part: tuple[str, int]) -> Any:
        if isinstance(found, Tensor) and found.requires_grad:
            return _Mark.apply(found, self, part)
        if isinstance(found, tuple | list):
            return type(found)(self._marked(item, part) for item in cast("tuple[Any, ...]", found))
        return found


class _Mark(torch.autograd.Function):
    """Changes nothing, and switches the clock when the gradients of a part begin."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, clock: Clock, part: tuple[str, int]) -> Tensor:
        ctx.clock, ctx.part = clock, part
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.clock.switch(ctx.part)
        return gradient, None, None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--image-size", type=int, default=128, help="side of the network's input, in pixels")
    parser.add_argument("--steps", type=int, default=12, help="measured steps")
    settings = vars(parser.parse_args())
    print(hardware(), f"{torch.get_num_threads()} threads")
    found = {frames: measure(settings, frames) for frames in FRAMES if frames > 1}
    sums = {frames: by_part(times) for frames, times in found.items()}
    print(f"{'ms of a step':18}" + "".join(f"{frames:7} frames " for frames in sums))
    for part in PARTS:
        print(f"{part:18}" + "".join(f"{s[part]:8.1f} {s[part] / sum(s.values()):5.0%} " for s in sums.values()))
    print(f"{'all':18}" + "".join(f"{sum(s.values()):8.1f}       " for s in sums.values()))
    longest = max(found)
    for part in (ATTENTION, DECODER, MEMORY):
        print(f"{part:18} by frame " + " ".join(f"{found[longest].get((part, n), 0):6.1f}" for n in range(longest)))
    value = _one_more(sums, 4, 8) / _one_more(sums, 2, 4)
    what = "time of one more frame at 8 frames without memory attention, as a multiple of that at 4"
    print_claims([Claim(what, value, GOAL_GROWTH, at_most=True)])


def measure(settings: dict[str, Any], frames: int) -> Times:
    """Return the median times of a step on windows of so many frames."""
    config = FitConfig.model_validate(
        {
            "model": settings["model"],
            "image_size": settings["image_size"],
            "batch_size": 1,
            "frames": frames,
            "prompt": "box",
        }
    )
    device = torch.device("cpu")
    run = start_run(config, RunIdentity("", 1, 1), device)
    step, batch, clock = TrainStep(run.model, run.optimizer, config, World(), device), drifting_batch(config), Clock()
    clock.record(run.model, "encode_levels", ENCODER)
    for name, part in METHODS.items():
        clock.record(run.model.sam, name, part)
    before = step_module.batch_loss, nn.utils.clip_grad_norm_
    clock.record(step_module, "batch_loss", LOSS)
    clock.record(nn.utils, "clip_grad_norm_", REST)
    steps: list[Times] = []
    for _ in range(settings["steps"] + 2):
        clock.times = defaultdict(float)
        step([batch])
        clock.switch((REST, -1))
        steps.append(clock.times)
    step_module.batch_loss, nn.utils.clip_grad_norm_ = before
    return {key: statistics.median(times[key] for times in steps[2:]) for key in steps[-1]}


def by_part(times: Times) -> dict[str, float]:
    """Add the times of all frames."""
    return {part: sum(value for (name, _), value in times.items() if name == part) for part in PARTS}


def _one_more(sums: dict[int, dict[str, float]], few: int, many: int) -> float:
    """Return the time of one more frame between two numbers of frames, without memory attention."""
    rest = {frames: sum(found.values()) - found[ATTENTION] for frames, found in sums.items()}
    return (rest[many] - rest[few]) / (many - few)


if __name__ == "__main__":
    main()
