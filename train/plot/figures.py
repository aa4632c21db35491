"""Choose the plots of a report, with their headings and what their marks mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.store.store import Store
from train.plot.plots import (
    FEW_OBJECTS,
    dice_by_class,
    dice_by_clicks,
    dice_by_size,
    iou_by_estimate,
    kind_styles,
    surface_by_tolerance,
)
from train.score.evaluate import Evaluation

_CLASS_NOTE = (
    "Large mark and line: mean over patients and its 95 % interval. Small dots: patients. Hollow: only one patient."
)


@dataclass(frozen=True)
class Figure:
    """A group of panels.

    Attributes:
        title: Its heading.
        panels: The panels as SVG.
        note: What the marks mean; empty if they need no words.
        legend: Color and prompt kind of each kind that is drawn.
    """

    title: str
    panels: list[str]
    note: str = ""
    legend: Sequence[tuple[str, str]] = ()


def score_figures(store: Store, evaluation: Evaluation) -> list[Figure]:
    """Draw the plots of scores, each with its heading; those without any panel are left out."""
    models, tables = evaluation.result["models"], evaluation.tables
    names = {info.code: info.name for info in store.manifest.classes}
    legend = [(style.color, kind) for kind, style in kind_styles(models).items()]
    by_area = f"The larger a mark is, the more objects are in its bin; hollow: fewer than {FEW_OBJECTS}."
    gray = "Gray: the other models."
    drawn = (
        ("Dice by class", dice_by_class(models, tables, names), _CLASS_NOTE),
        ("Dice against size of the object", dice_by_size(tables, _pixel_um2(store)), f"{by_area} {gray}"),
        ("Surface Dice against tolerance", surface_by_tolerance(models), gray),
        ("True IoU against the model's own estimate", iou_by_estimate(models), f"{by_area} {gray}"),
        ("Dice after simulated clicks", dice_by_clicks(tables), gray),
    )
    return [Figure(title, panels, note, legend) for title, panels, note in drawn if panels]


def _pixel_um2(store: Store) -> NDArray[np.float64] | None:
    """Return the area of a pixel of each tile in µm², float64 (N,); None if the resolution of a ROI is not known."""
    mpp_um = {source.frame_id: source.mpp_um for source in store.manifest.sources}
    own = [mpp_um[frame_id] for frame_id in store.column("tiles/frame_id").tolist()]
    if None in own:
        return None
    return np.array(own, np.float64) ** 2 / store.column("tiles/scale_xy").astype(np.float64).prod(1)
