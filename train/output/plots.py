"""Draw the plots of the report as SVG text for an HTML page."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from train.runtime.run_log import METRICS_FILE, read_steps
from train.score.surface_dice import CURVE_UM
from train.score.tables import Tables

_COLORS = ("#377eb8", "#e41a1c", "#4daf4a", "#984ea3", "#ff7f00", "#a65628")
_GRAYS = (0x40, 0xDD)
_HATCHES, _DASHES = ("", "///", "..."), ("-", "--", ":")
"""Hatches of bars and dashes of lines, one for each prompt kind; colors stand for the models."""

_SIZE_BINS = 12
_METADATA = {"Date": None, "Creator": None}


def bars_by_class(models: dict[str, Any]) -> str:
    """Draw the mean Dice over patients of each class with its interval, one bar for each model and prompt kind.

    The bar of a class that only one patient has is hollow, because its error is unknown.
    """
    series = _series(models)
    classes = list(dict.fromkeys(name for *_, scores in series for name in scores["classes"]))
    figure = _figure(0.28 * len(classes) * max(len(series), 2) + 1.2 + 0.12 * len(series))
    axes = figure.subplots()
    height = 0.8 / len(series)
    patients = [0] * len(classes)
    legend: list[Patch] = []
    for number, (label, color, place, scores) in enumerate(series):
        nothing: dict[str, Any] = {"value": np.nan, "ci95": None, "patients": 0}
        entries = [scores["classes"].get(name) for name in classes]
        means = [entry["class_mean"]["dice"] if entry else nothing for entry in entries]
        patients = [max(count, mean["patients"]) for count, mean in zip(patients, means, strict=True)]
        dice = np.array([mean["value"] for mean in means])
        ends = np.array([mean["ci95"] or (np.nan, np.nan) for mean in means])
        places = np.arange(len(classes)) + (number + 0.5) * height - 0.4
        hatch = _HATCHES[place % len(_HATCHES)]
        style: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        legend.append(Patch(label=label, facecolor=color, hatch=hatch, edgecolor="white", linewidth=0))
        bars = axes.barh(places, dice, height, **style)
        for bar, mean in zip(bars, means, strict=True):
            if mean["patients"] == 1:
                bar.set(facecolor="white", edgecolor=color, linewidth=1)
        axes.errorbar(dice, places, xerr=_arms(dice, ends), fmt="none", ecolor="#222222", elinewidth=1)
    names = [f"{_plain(name)} ({count})" for name, count in zip(classes, patients, strict=True)]
    axes.set_yticks(range(len(classes)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("Dice, mean and 95 % interval over patients (their number)")
    figure.legend(handles=legend, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return _svg(figure)


def dice_by_size(tables: Tables) -> str:
    """Draw Dice against area: a dot for each object of the first model, and a line of binned means for every model."""
    series = _series(tables)
    figure = _figure(3.0 + 0.12 * len(series))
    axes = figure.subplots()
    *_, first_color, _, first = series[0]
    axes.scatter(first.area_px.clip(1), first.dice, s=6, alpha=0.25, color=first_color, linewidths=0)
    for label, color, place, table in series:
        size, mean = _binned(table.area_px.clip(1), table.dice)
        dashes = _DASHES[place % len(_DASHES)]
        axes.plot(size, mean, marker="o", markersize=3, label=label, color=color, linestyle=dashes)
    axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("area of the object, pixels")
    axes.set_ylabel("Dice")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return _svg(figure)


def surface_by_tolerance(models: dict[str, Any]) -> str:
    """Draw the class mean of surface Dice against the tolerance; return an empty text if no resolution is known."""
    drawn = [series for series in _series(models) if series[-1]["overall"]["surface_dice_by_um"]]
    if not drawn:
        return ""
    figure = _figure(3.0 + 0.12 * len(drawn))
    axes = figure.subplots()
    for label, color, place, scores in drawn:
        curve = scores["overall"]["surface_dice_by_um"]
        means, reach_um = [entry["value"] for entry in curve.values()], [float(um) for um in curve]
        dashes = _DASHES[place % len(_DASHES)]
        axes.plot(reach_um, means, label=label, color=color, linestyle=dashes, marker="o", markersize=4)
    axes.set_xticks(CURVE_UM)
    axes.set_xlabel("tolerance in µm")
    axes.set_ylabel("surface Dice, class mean")
    axes.set_ylim(0, 1)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return _svg(figure)


def iou_by_estimate(models: dict[str, Any]) -> str:
    """Draw the mean IoU of objects against the model's estimate, in bins; return an empty text without estimates.

    The area of a dot shows the number of objects in its bin. On the diagonal, the estimates are right. The legend shows
    the mean error of each model's estimates, and that of the best constant estimate.
    """
    drawn = [series for series in _series(models) if "iou_estimate" in series[-1]["overall"]]
    if not drawn:
        return ""
    figure = _figure(3.4 + 0.2 * len(drawn))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1)
    for label, color, place, scores in drawn:
        found = scores["overall"]["iou_estimate"]
        bins, ranks = found["reliability"], found["spearman"]
        told = f"{label}: off by {found['absolute_error']:.3f} (best constant {found['constant_error']:.3f}), bias "
        told += f"{found['bias']:+.3f}" + ("" if ranks is None else f", rank correlation {ranks:.2f}")
        estimates, ious, counts = ([entry[key] for entry in bins] for key in ("estimate", "iou", "n"))
        sizes = 250 * np.array(counts) / sum(counts)
        axes.plot(estimates, ious, color=color, linestyle=_DASHES[place % len(_DASHES)], linewidth=1)
        axes.scatter(estimates, ious, sizes, color=color, label=told, alpha=0.7)
    axes.set_xlabel("the model's estimate of its IoU")
    axes.set_ylabel("true IoU, mean")
    axes.set_ylim(0, 1)
    legend = figure.legend(loc="outside upper center", frameon=False, fontsize=8)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([20])
    return _svg(figure)


def dice_by_clicks(tables: Tables) -> str:
    """Draw the mean Dice after each simulated click; return an empty text if no clicks were simulated."""
    drawn = [series for series in _series(tables) if series[-1].clicks_dice.shape[1] > 1]
    if not drawn:
        return ""
    figure = _figure(3.2)
    axes = figure.subplots()
    for label, color, place, table in drawn:
        dice, dashes = table.clicks_dice.mean(0), _DASHES[place % len(_DASHES)]
        axes.plot(range(len(dice)), dice, marker="o", markersize=4, label=label, color=color, linestyle=dashes)
    axes.set_xticks(range(max(table.clicks_dice.shape[1] for *_, table in drawn)))
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("clicks after the prompt")
    axes.set_ylabel("Dice")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return _svg(figure)


def training_curves(run: Path) -> str:
    """Draw the loss of every step and the validation Dice of every epoch, from a run's `metrics.jsonl`."""
    steps = read_steps(run)
    lines = (run / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    epochs = [entry for entry in map(json.loads, lines) if entry.get("event") == "epoch"]
    figure = _figure(3.2)
    loss_axes, score_axes = figure.subplots(1, 2)
    number, loss = np.array([step.step for step in steps]), np.array([step.loss for step in steps])
    loss_axes.plot(number, loss, color=_COLORS[0], alpha=0.3, linewidth=0.8)
    window = max(len(loss) // 50, 1)
    if len(loss) >= window:
        smooth = np.convolve(loss, np.full(window, 1 / window), "valid")
        loss_axes.plot(number[window - 1 :], smooth, color=_COLORS[0])
    loss_axes.set_xlabel("step")
    loss_axes.set_ylabel("loss")
    for place, kind in enumerate(dict.fromkeys(kind for entry in epochs for kind in entry["val"] or {})):
        scored = [entry for entry in epochs if kind in (entry["val"] or {})]
        dice = [entry["val"][kind]["overall"]["dice"] for entry in scored]
        score_axes.plot(
            [entry["step"] for entry in scored], dice, marker="o", markersize=3, label=kind, color=_COLORS[place]
        )
    score_axes.set_ylim(0, 1)
    score_axes.set_xlabel("step")
    score_axes.set_ylabel("validation Dice")
    if score_axes.lines:
        score_axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def model_colors(models: list[str]) -> dict[str, str]:
    """Give each model a color and each baseline a gray, as `#rrggbb`."""
    baselines = [model for model in models if model.startswith("baseline:")]
    grays = ["#" + 3 * f"{round(level):02x}" for level in np.linspace(*_GRAYS, len(baselines))]
    others = (model for model in models if model not in baselines)
    return dict(zip(baselines, grays, strict=True)) | {
        model: _COLORS[number % len(_COLORS)] for number, model in enumerate(others)
    }


def _figure(height_in: float) -> Figure:
    figure = Figure(figsize=(9, height_in), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def _plain(text: str) -> str:
    """Escape dollar signs, between which matplotlib would typeset a formula."""
    return text.replace("$", r"\$")


def _label(model: str, kind: str) -> str:
    label = _plain(f"{model}, {kind}")
    # Matplotlib leaves labels that begin with an underscore out of a legend.
    return f" {label}" if label.startswith("_") else label


def _series(by_model: Mapping[str, Mapping[Any, Any]]) -> list[tuple[str, str, int, Any]]:
    """Return for each model and prompt kind the label, the color, the number of the prompt kind, and the scores."""
    colors = model_colors(list(by_model))
    return [
        (_label(model, kind), colors[model], place, found)
        for model, kinds in by_model.items()
        for place, (kind, found) in enumerate(kinds.items())
    ]


def _arms(values: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths of error bars, (2, n); they are 0 where the interval is unknown."""
    return np.nan_to_num(np.abs(ends.T - values))


def _binned(size: NDArray[np.int64], dice: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the center and the mean Dice of each bin; all bins have equal width in the logarithm of the size."""
    edges = np.geomspace(size.min(), size.max() + 1, _SIZE_BINS + 1)
    owner = np.clip(np.digitize(size, edges) - 1, 0, _SIZE_BINS - 1)
    count = np.bincount(owner, minlength=_SIZE_BINS)
    filled = count > 0
    center = np.sqrt(edges[:-1] * edges[1:])
    return center[filled], np.bincount(owner, dice, minlength=_SIZE_BINS)[filled] / count[filled]


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_METADATA)
    text = buffer.getvalue()
    # Cut off the XML declaration at the start, which is not allowed inside an HTML page.
    return text[text.index("<svg") :]
