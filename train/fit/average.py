"""The moving average of a run's weights.

Source of the warm-up: the exponential moving average of TensorFlow, whose decay is min(decay, (1 + n) / (10 + n)) after
n steps. Without it, the first steps' weights stay in the average for 1 / (1 - decay) steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Begin the moving average of a model's weights, with a warm-up.

    Args:
        model: The model; the average starts as a copy of it.
        decay: Share of the average that stays in each step after the warm-up.
    """
    average = AveragedModel(model)
    average.multi_avg_fn = _with_warm_up(average.n_averaged, decay)
    return average


def without_warm_up(average: AveragedModel, decay: float) -> None:
    """Continue an average of an older version, which had no warm-up."""
    average.multi_avg_fn = get_ema_multi_avg_fn(decay)


def decay_after(steps: int, decay: float) -> float:
    """Return the decay with warm-up after a number of steps."""
    return min(decay, (1 + steps) / (10 + steps))


def _with_warm_up(steps: Tensor, decay: float) -> Callable[..., None]:
    """Return the update of an average whose number of steps is `steps`, a tensor on the CPU that changes."""

    def update(averaged: Any, current: Any, on_device: Any) -> None:
        # Do not read `on_device`: that would wait for the device in every step.
        get_ema_multi_avg_fn(decay_after(int(steps), decay))(averaged, current, on_device)

    return update
