"""Draw the curves of a run: its loss, and its validation scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from train.plot.panel import TEXT_PT, name_axes, panel, styles_of
from train.runtime.run_log import METRICS_FILE, read_steps

_HEIGHT_IN = 2.0
_LOSS_COLOR = "#0072b2"


def training_curves(run: Path) -> list[str]:
    """Draw the loss of every step and, if there was a validation, its Dice after every epoch.

    Args:
        run: Folder of the run, with its `metrics.jsonl`.
    """
    return [_loss(run), *_validation(run)]


def _loss(run: Path) -> str:
    steps = read_steps(run)
    drawn = panel("Loss of each step; the line is their moving mean", _HEIGHT_IN)
    number, loss = np.array([step.step for step in steps]), np.array([step.loss for step in steps])
    drawn.axes.plot(number, loss, color=_LOSS_COLOR, alpha=0.3, linewidth=0.8)
    window = max(len(loss) // 50, 1)
    if len(loss) >= window:
        smooth = np.convolve(loss, np.full(window, 1 / window), "valid")
        drawn.axes.plot(number[window - 1 :], smooth, color=_LOSS_COLOR)
    name_axes(drawn.axes, "step", "loss")
    return drawn.svg()


def _validation(run: Path) -> Iterator[str]:
    lines = (run / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    epochs = [entry for entry in map(json.loads, lines) if entry.get("event") == "epoch"]
    kinds = list(dict.fromkeys(kind for entry in epochs for kind in entry["val"] or {}))
    if not kinds:
        return
    drawn = panel("Validation after each epoch", _HEIGHT_IN)
    for kind, style in styles_of(kinds).items():
        scored = [entry for entry in epochs if kind in (entry["val"] or {})]
        dice = [entry["val"][kind]["overall"]["dice"] for entry in scored]
        at = [entry["step"] for entry in scored]
        drawn.axes.plot(at, dice, marker=style.marker, markersize=3, label=kind, color=style.color)
    drawn.axes.set_ylim(0, 1)
    name_axes(drawn.axes, "step", "validation Dice")
    drawn.axes.legend(frameon=False, fontsize=TEXT_PT, loc="lower right")
    yield drawn.svg()
