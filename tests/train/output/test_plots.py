import re
from typing import Any

import numpy as np
import pytest

from train.output.plots import bars_by_class, dice_by_clicks, dice_by_size, iou_by_estimate, model_colors
from train.score.score_table import ScoreTable
from train.score.tables import Tables


def _table(areas: list[int], clicks: int = 0) -> ScoreTable:
    n = len(areas)
    numbers, dice = np.arange(n), np.linspace(0, 1, n)
    return ScoreTable(
        tile_index=numbers,
        object_id=numbers,
        class_id=np.ones(n, np.int64),
        patient=np.full(n, "a"),
        frame_id=np.full(n, "roi"),
        roi_component=np.zeros(n, np.int64),
        touches_edge=np.zeros(n, bool),
        area_px=np.array(areas),
        dice=dice,
        iou=dice / (2 - dice),
        surface_dice=np.full(n, np.nan),
        surface_curve=np.full((n, 4), np.nan),
        iou_estimate=np.full(n, np.nan),
        clicks_dice=np.repeat(dice[:, None], clicks + 1, 1),
        clicks_iou=np.repeat(dice[:, None], clicks + 1, 1),
    )


def _texts(svg: str) -> set[str]:
    """Return the texts of a plot, each of which matplotlib writes into a comment beside its glyphs."""
    return {text.strip() for text in re.findall(r"<!--(.*?)-->", svg)}


def test_names_are_shown_as_they_are() -> None:
    names = ["_hidden", r"$\none$", "plain"]
    entry: dict[str, Any] = {"class_mean": {"dice": {"value": 0.5, "ci95": (0.4, 0.6), "patients": 3}}}
    models = {name: {"box": {"overall": entry, "classes": {r"$\class$": entry}}} for name in names}
    tables: Tables = {name: {"box": _table([10, 20], clicks=1)} for name in names}
    for svg in (bars_by_class(models), dice_by_size(tables), dice_by_clicks(tables)):
        assert svg.startswith("<svg")
        assert {"_hidden, box", r"$\none$, box", "plain, box"} <= _texts(svg)


@pytest.mark.parametrize("areas", [[7], [0, 0], [1, 10, 100_000]])
def test_any_sizes_of_objects_are_drawn(areas: list[int]) -> None:
    assert "m, box" in _texts(dice_by_size({"m": {"box": _table(areas)}}))


def test_without_clicks_there_is_no_curve_of_clicks() -> None:
    assert dice_by_clicks({"m": {"box": _table([1, 2])}}) == ""


def test_a_class_that_one_model_lacks_and_one_patient_have_bars_without_intervals() -> None:
    entry: dict[str, Any] = {"class_mean": {"dice": {"value": 0.5, "ci95": None, "patients": 1}}}
    models = {name: {"box": {"overall": entry, "classes": {name: entry}}} for name in ("a", "b")}
    assert {"a, box", "b, box", "a (1)", "b (1)"} <= _texts(bars_by_class(models))


def test_no_two_curves_look_alike() -> None:
    models = ["a", "b", "baseline:zero_shot", "baseline:zero_shot:b", "baseline:box", "baseline:image", "baseline:disc"]
    tables: Tables = {name: {kind: _table([10, 20], clicks=1) for kind in ("box", "centroid")} for name in models}
    entry: dict[str, Any] = {"class_mean": {"dice": {"value": 0.5, "ci95": None, "patients": 2}}}
    scores = {name: {kind: {"overall": entry, "classes": {"c": entry}} for kind in by} for name, by in tables.items()}
    for svg in (dice_by_size(tables), dice_by_clicks(tables)):
        styles = set(re.findall(r'style="fill: none; ((?:stroke-dasharray: [\d.,]+; )?)[^"]*?stroke: (#\w{6})', svg))
        assert {color for _, color in styles} >= set(model_colors(models).values())
        assert len([style for style in styles if style[1] in model_colors(models).values()]) == 2 * len(models)
    bars = set(re.findall(r"fill: (url\(#h\w+\)|#\w{6})", bars_by_class(scores))) - {"#ffffff"}
    assert len(bars) == 2 * len(models)


def test_bars_name_the_number_of_patients_and_one_patient_is_hollow() -> None:
    def entry(patients: int) -> dict[str, Any]:
        return {
            "class_mean": {"dice": {"value": 0.5, "ci95": (0.4, 0.6) if patients > 1 else None, "patients": patients}}
        }

    models = {"m": {"box": {"classes": {"tumor": entry(3), "stroma": entry(1)}}}}
    drawn = bars_by_class(models)
    assert "tumor (3)" in drawn
    assert "stroma (1)" in drawn
    assert drawn.count("fill: #ffffff; stroke: ") == 1


def test_the_legend_tells_how_far_estimates_are_off() -> None:
    estimate = {
        "absolute_error": 0.25,
        "constant_error": 0.125,
        "bias": -0.05,
        "spearman": 0.5,
        "reliability": [{"estimate": 0.3, "iou": 0.4, "n": 3}, {"estimate": 0.8, "iou": 0.7, "n": 9}],
    }
    drawn = iou_by_estimate({"m": {"box": {"overall": {"iou_estimate": estimate}}}})
    assert "m, box: off by 0.250 (best constant 0.125), bias -0.050, rank correlation 0.50" in drawn
    assert iou_by_estimate({"m": {"box": {"overall": {}}}}) == ""
