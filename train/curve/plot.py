"""Draw Dice over the number of training patients, beside the start and the baselines."""

from __future__ import annotations

import math
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLOR, _START, _BASELINE = "#377eb8", "#222222", "#777777"
_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("--", ":", "-.", (0, (12, 3)))
"""Dashes of the untrained model, if it is not the start, and of the baselines, in their order."""


def write_plot(path: Path, curve: dict[str, Any]) -> None:
    """Write the plot as PNG, with one panel for each prompt kind.

    Args:
        path: The file to write.
        curve: The content of `curve.json`.
    """
    kinds = list(curve["points"][0]["scores"])
    figure = Figure(figsize=(5.2 * len(kinds), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        _draw(axes, curve, kind)
    panels[0].set_ylabel(f"{curve['measure']}, {curve['split']} split")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _draw(axes: Axes, curve: dict[str, Any], kind: str) -> None:
    patients = [point["patients"] for point in curve["points"]]
    scores = [point["scores"][kind] for point in curve["points"]]
    dice = [score["dice"] for score in scores]
    ends = [score["ci95"] or (math.nan, math.nan) for score in scores]
    arms = [
        [value - low for value, (low, _) in zip(dice, ends, strict=True)],
        [high - value for value, (_, high) in zip(dice, ends, strict=True)],
    ]
    axes.errorbar(patients, dice, yerr=arms, color=_COLOR, marker="o", capsize=3, label="fine-tuned")
    # The start of the runs comes first, unless its file has gone; an untrained model beside it is one more baseline.
    starts = list(curve["start"].items())
    for name, kinds in starts[:1]:
        axes.axhline(kinds[kind]["dice"], color=_START, linewidth=1.2, label=f"start ({name.partition(':')[2]})")
    for (name, kinds), dash in zip([*starts[1:], *curve["baselines"].items()], cycle(_DASHES), strict=False):
        # A baseline that sees more of the truth than the prompt gives is not a fair comparison.
        if kind not in curve["oracles"].get(name, []):
            axes.axhline(kinds[kind]["dice"], color=_BASELINE, linestyle=dash, linewidth=1.2, label=name)
    axes.set_xscale("log")
    axes.set_xticks(patients, [str(count) for count in patients])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training patients")
    axes.set_title(f"{kind} prompt", loc="left")
    axes.set_ylim(top=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee")
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2}
    axes.legend(frameon=False, fontsize="small", handlelength=3.5, **place)
