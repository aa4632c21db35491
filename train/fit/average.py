"""The moving average of a run's weights.

Source of the warm-up: the exponential moving average of TensorFlow, whose decay is min(decay, (1 + n) / (10 + n)) after
n steps. Without it, the first steps' weights stay in the average for 1 / (1 - decay) steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

AverageStep = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]


def moving_average(model: nn.Module, decay: float, *, warm_up: bool = True) -> AveragedModel:
    """Begin the moving average of a model's weights.

    Args:
        model: The model; the average starts as a copy of it.
        decay: Share of the average that stays in each step.
        warm_up: Whether the decay is smaller in the first steps; runs of older versions had no warm-up.
    """
    return AveragedModel(model, multi_avg_fn=_average_step(decay, warm_up=warm_up))


def decay_after(steps: int, decay: float) -> float:
    """Return the decay with warm-up after a number of steps."""
    return min(decay, (1 + steps) / (10 + steps))


def without_warm_up(average: AveragedModel, decay: float) -> None:
    """Continue an average that was begun without a warm-up."""
    average.multi_avg_fn = _average_step(decay, warm_up=False)


def _average_step(decay: float, *, warm_up: bool) -> AverageStep:
    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        kept = decay_after(int(steps), decay) if warm_up else decay
        for mean, value in zip(averaged, current, strict=True):
            mean.lerp_(value, 1 - kept)

    return update
