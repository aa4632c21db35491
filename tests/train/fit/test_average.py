"""The moving average of weights, with and without its warm-up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.fit.average import decay_after, moving_average, without_warm_up


def _averages(decay: float, *, warm_up: bool, steps: int = 30) -> list[float]:
    model = nn.Linear(1, 1, bias=False)
    average = moving_average(model, decay)
    if not warm_up:
        without_warm_up(average, decay)
    found: list[float] = []
    for step in range(steps):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update_parameters(model)
        found.append(average.module.weight.item())  # pyright: ignore
    return found


def test_average_follows_the_published_warm_up() -> None:
    expected = [0.0]
    for step in range(1, 30):
        kept = min(0.9, (1 + step) / (10 + step))
        expected.append(kept * expected[-1] + (1 - kept) * step)
    assert _averages(0.9, warm_up=True) == pytest.approx(expected, abs=1e-4)
    assert decay_after(0, 0.999) == pytest.approx(0.1)
    assert decay_after(10**6, 0.999) == 0.999


def test_older_runs_go_on_without_it() -> None:
    plain = _averages(0.9, warm_up=False)
    assert plain[-1] < _averages(0.9, warm_up=True)[-1]
    model = nn.Linear(1, 1, bias=False)
    average = moving_average(model, 0.5)
    without_warm_up(average, 0.5)
    average.update_parameters(model)
    with torch.no_grad():
        before = model.weight.item()
        model.weight.add_(2.0)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(before + 1.0)  # pyright: ignore
