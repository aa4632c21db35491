"""Draw the scores of a report: one panel for each class or model, so that any number of models can be told apart.

A color stands for a prompt kind. In a model's panel, the gray lines are the other models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from train.plot.panel import LINE_IN, OTHERS, TEXT_PT, Style, name_axes, panel, plain, styles_of
from train.score.surface_dice import CURVE_UM
from train.score.tables import Tables
from train.statistics.estimate import class_mean

FEW_OBJECTS = 5
"""The mark of a bin with fewer objects is hollow."""

_SIZE_BINS = 12
_HEIGHT_IN = 2.1
_ROW_IN = 0.13
"""Height of one prompt kind in a panel of a class."""

Models = Mapping[str, Mapping[Any, Any]]
"""What is drawn, by model and prompt kind."""


@dataclass(frozen=True)
class Line:
    """One line in the panels of models.

    Attributes:
        x: Places along the x axis.
        y: The values.
        counts: Number of objects behind each value; None draws all marks alike.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    counts: NDArray[np.int64] | None = None


def kind_styles(models: Models) -> dict[str, Style]:
    """Return the style of each prompt kind that occurs."""
    return styles_of(list(dict.fromkeys(str(kind) for kinds in models.values() for kind in kinds)))


def dice_by_class(models: dict[str, Any], tables: Tables, class_names: Mapping[int, str]) -> list[str]:
    """Draw the Dice of each class: the mean over patients with its interval, and a dot for each patient.

    The mark of a class that only one patient has is hollow, because its error is unknown.

    Args:
        models: The means of each model and prompt kind, as `metrics.json` holds them.
        tables: The scores of every object.
        class_names: Names of the classes by code.
    """
    codes = {name: code for code, name in class_names.items()}
    shown = dict.fromkeys(name for kinds in models.values() for scores in kinds.values() for name in scores["classes"])
    return [_class_panel(name, codes.get(name), models, tables) for name in shown]


def dice_by_size(tables: Tables, pixel_um2: NDArray[np.float64] | None = None) -> list[str]:
    """Draw the mean Dice against the size of the object, in bins.

    The area of a mark shows the number of objects in its bin; it is hollow if these are few.

    Args:
        tables: The scores of every object.
        pixel_um2: float64, area of a pixel of each tile of the store in µm²; None if it is not known for all tiles.
    """

    def sizes(table: Any) -> NDArray[np.float64]:
        area = table.area_px.clip(1).astype(np.float64)
        return area if pixel_um2 is None else area * pixel_um2[table.tile_index]

    every = np.concatenate([sizes(table) for kinds in tables.values() for table in kinds.values()])
    edges = np.geomspace(every.min(), every.max() * (1 + 1e-9), _SIZE_BINS + 1)
    lines = {m: {k: _binned(sizes(table), table.dice, edges) for k, table in by.items()} for m, by in tables.items()}
    unit = "pixels" if pixel_um2 is None else "µm²"

    def finish(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(_places(every.max() / every.min()))
        # Powers of ten would be typeset as formulas, and ticks without labels drawn; both take long.
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        name_axes(axes, f"area of the object, {unit}", "Dice, mean over objects")

    return _model_panels(lines, finish)


def _places(ratio: float) -> Locator:
    """Return what places the ticks of a log axis whose end is `ratio` times its start."""
    if ratio > 300:
        return LogLocator()
    return LogLocator(subs=(1.0, 2.0, 5.0)) if ratio > 10 else MaxNLocator(4)


def surface_by_tolerance(models: dict[str, Any]) -> list[str]:
    """Draw the class mean of surface Dice against the tolerance; return nothing if no resolution is known."""
    lines: dict[str, dict[str, Line]] = {}
    for model, kinds in models.items():
        for kind, scores in kinds.items():
            curve = scores["overall"]["surface_dice_by_um"]
            if curve:
                reach_um = np.array([float(um) for um in curve])
                means = np.array([entry["value"] for entry in curve.values()])
                lines.setdefault(model, {})[kind] = Line(reach_um, means)

    def finish(axes: Axes) -> None:
        axes.set_xticks(CURVE_UM)
        name_axes(axes, "tolerance in µm", "surface Dice, class mean")

    return _model_panels(lines, finish)


def iou_by_estimate(models: dict[str, Any]) -> list[str]:
    """Draw the mean IoU of objects against the model's estimate, in bins; return nothing without estimates.

    The area of a mark shows the number of objects in its bin. On the diagonal, the estimates are right. The text shows
    the mean error of each model's estimates, and that of the best constant estimate.
    """
    lines: dict[str, dict[str, Line]] = {}
    told: dict[str, dict[str, str]] = {}
    for model, kinds in models.items():
        for kind, scores in kinds.items():
            found = scores["overall"].get("iou_estimate")
            if not found:
                continue
            bins, ranks = found["reliability"], found["spearman"]
            estimates, ious, counts = (np.array([entry[key] for entry in bins]) for key in ("estimate", "iou", "n"))
            lines.setdefault(model, {})[kind] = Line(estimates, ious, counts)
            text = f"{kind}: off by {found['absolute_error']:.3f} (best constant {found['constant_error']:.3f}), "
            text += f"bias {found['bias']:+.3f}" + ("" if ranks is None else f", rank correlation {ranks:.2f}")
            told.setdefault(model, {})[kind] = text

    def finish(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#999", linewidth=0.8, zorder=0)
        axes.set_xlim(0, 1.02)
        name_axes(axes, "the model's estimate of its IoU", "true IoU, mean")

    return _model_panels(lines, finish, told)


def dice_by_clicks(tables: Tables) -> list[str]:
    """Draw the class mean of Dice after each simulated click; return nothing if no clicks were simulated."""
    lines: dict[str, dict[str, Line]] = {}
    for model, kinds in tables.items():
        for kind, table in kinds.items():
            if table.clicks_dice.shape[1] > 1:
                columns = table.clicks_dice.T
                dice = np.array([class_mean(column, table.patient, table.class_id).value for column in columns])
                lines.setdefault(model, {})[kind] = Line(np.arange(len(dice), dtype=np.float64), dice)

    def finish(axes: Axes) -> None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        name_axes(axes, "clicks after the prompt", "Dice, class mean")

    return _model_panels(lines, finish)


def _class_panel(name: str, code: int | None, models: dict[str, Any], tables: Tables) -> str:
    """Draw one class: for each model its name, and below it one row for each prompt kind."""
    styles = kind_styles(models)
    row_of: list[tuple[float, str, str]] = []
    names_at: list[tuple[float, str]] = []
    y_in = 0.0
    for model, kinds in models.items():
        names_at.append((y_in, model))
        y_in += LINE_IN
        for kind in kinds:
            row_of.append((y_in + _ROW_IN / 2, model, kind))
            y_in += _ROW_IN
        y_in += 0.06
    means = {(model, kind): models[model][kind]["classes"].get(name) for _, model, kind in row_of}
    patients = max(entry["class_mean"]["dice"]["patients"] for entry in means.values() if entry)
    drawn = panel(f"{name} ({patients} {'patient' if patients == 1 else 'patients'})", y_in)
    axes = drawn.axes
    for y, model in names_at:
        look = {"fontsize": TEXT_PT - 1, "color": "#555555", "verticalalignment": "top", "clip_on": True}
        axes.text(0.01, y + 0.01, plain(model), **look)
    for y, model, kind in row_of:
        entry = means[model, kind]
        if entry is None:
            continue
        style, mean = styles[kind], entry["class_mean"]["dice"]
        table = tables.get(model, {}).get(kind)  # pyright: ignore[reportArgumentType, reportCallIssue]
        if table is not None and code is not None:
            own = _patient_means(table.dice[table.class_id == code], table.patient[table.class_id == code])
            dots: dict[str, Any] = {"color": style.color, "alpha": 0.45, "markersize": 3, "markeredgewidth": 0}
            axes.plot(own, np.full(len(own), y - _ROW_IN / 4), "o", zorder=3, **dots)
        if mean["ci95"]:
            axes.plot(mean["ci95"], (y, y), color=style.color, linewidth=1)
        face = "white" if mean["patients"] == 1 else style.color
        look: dict[str, Any] = {"markersize": 4.5, "markeredgewidth": 0.8, "markeredgecolor": style.color}
        axes.plot([mean["value"]], [y], marker=style.marker, markerfacecolor=face, **look)
    axes.set_ylim(y_in, 0)
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    axes.grid(axis="x", color="#eee", linewidth=0.6)
    axes.set_axisbelow(True)
    name_axes(axes, "Dice")
    return drawn.svg()


def _model_panels(
    lines: dict[str, dict[str, Line]],
    finish: Callable[[Axes], None],
    told: Mapping[str, Mapping[str, str]] | None = None,
) -> list[str]:
    """Draw one panel for each model, with the lines of the others in gray behind its own."""
    styles = kind_styles(lines)
    panels: list[str] = []
    for model, own in lines.items():
        said = (told or {}).get(model, {})
        drawn = panel(model, _HEIGHT_IN, [(text, styles[kind].color) for kind, text in said.items()])
        for other, kinds in lines.items():
            for line in kinds.values() if other != model else ():
                drawn.axes.plot(line.x, line.y, color=OTHERS, linewidth=0.7, zorder=1)
        for kind, line in own.items():
            style = styles[kind]
            drawn.axes.plot(line.x, line.y, color=style.color, linewidth=1.2, zorder=2)
            areas = 14.0 if line.counts is None else 6 + 120 * line.counts / max(line.counts.sum(), 1)
            few = np.zeros(len(line.x), bool) if line.counts is None else line.counts < FEW_OBJECTS
            faces = ["white" if hollow else style.color for hollow in few]
            look: dict[str, Any] = {"edgecolors": style.color, "linewidths": 0.8, "marker": style.marker, "zorder": 3}
            drawn.axes.scatter(line.x, line.y, areas, faces, **look)
        drawn.axes.set_ylim(-0.02, 1.02)
        finish(drawn.axes)
        panels.append(drawn.svg())
    return panels


def _patient_means(values: NDArray[np.float64], patients: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return the mean of each patient's values."""
    _, owners = np.unique(patients, return_inverse=True)
    return np.bincount(owners, values) / np.bincount(owners) if len(values) else values


def _binned(size: NDArray[np.float64], dice: NDArray[np.float64], edges: NDArray[np.float64]) -> Line:
    """Return the center, the mean Dice and the number of objects of each bin that has an object."""
    bins = len(edges) - 1
    owner = np.clip(np.digitize(size, edges) - 1, 0, bins - 1)
    count = np.bincount(owner, minlength=bins)
    filled = count > 0
    center = np.sqrt(edges[:-1] * edges[1:])
    return Line(center[filled], np.bincount(owner, dice, minlength=bins)[filled] / count[filled], count[filled])
