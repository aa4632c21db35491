import html
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from train.plot.panel import panel
from train.plot.plots import (
    FEW_OBJECTS,
    dice_by_class,
    dice_by_clicks,
    dice_by_size,
    iou_by_estimate,
    kind_styles,
    surface_by_tolerance,
)
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
        whole_iou=dice / (2 - dice),
        iou_estimate=np.full(n, np.nan),
        clicks_dice=np.repeat(dice[:, None], clicks + 1, 1),
        clicks_iou=np.repeat(dice[:, None], clicks + 1, 1),
    )


def _texts(svg: str) -> set[str]:
    """Return the texts of a plot."""
    return {html.unescape(text).strip() for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)}


def _scores(value: float = 0.5, patients: int = 3) -> dict[str, Any]:
    mean = {"value": value, "ci95": (0.4, 0.6) if patients > 1 else None, "patients": patients}
    return {"class_mean": {"dice": mean}, "surface_dice_by_um": {"2": mean, "5": mean}}


def _marks(svg: str, color: str) -> tuple[int, int]:
    """Return how many marks of a color are full, and how many are hollow."""
    full = len(re.findall(rf"fill: {color}; stroke: {color}; stroke-width: 0.8", svg))
    return full, len(re.findall(rf"fill: #ffffff; stroke: {color}; stroke-width: 0.8", svg))


def test_names_are_shown_as_they_are() -> None:
    names = ["_hidden", r"$\none$", "plain"]
    models = {name: {"box": {"overall": _scores(), "classes": {r"$\class$": _scores()}}} for name in names}
    tables: Tables = {name: {"box": _table([10, 20], clicks=1)} for name in names}
    (by_class,) = dice_by_class(models, tables, {1: r"$\class$"})
    assert {*names, r"$\class$ (3 patients)"} <= _texts(by_class)
    for panels in (dice_by_size(tables), dice_by_clicks(tables), surface_by_tolerance(models)):
        assert [name for name, svg in zip(names, panels, strict=True) if name in _texts(svg)] == names
        assert all(svg.startswith("<svg") for svg in panels)


@pytest.mark.parametrize("areas", [[7], [0, 0], [1, 10, 100_000]])
def test_any_sizes_of_objects_are_drawn(areas: list[int]) -> None:
    (drawn,) = dice_by_size({"m": {"box": _table(areas)}})
    assert {"m", "area of the object, pixels"} <= _texts(drawn)


def test_areas_are_in_square_micrometers_where_the_resolution_is_known() -> None:
    # Tile 0 has pixels of 100 µm² and tile 1 of 1 µm², so both objects have 1,000 µm².
    tables: Tables = {"m": {"box": _table([10, 1000])}}
    (drawn,) = dice_by_size(tables, np.array([100.0, 1.0]))
    assert "area of the object, µm²" in _texts(drawn)
    assert sum(_marks(drawn, "#0072b2")) == 1
    assert sum(_marks(dice_by_size(tables)[0], "#0072b2")) == 2


def test_labels_of_areas_are_plain_numbers() -> None:
    (wide,) = dice_by_size({"m": {"box": _table([20, 90_000])}})
    assert {"100", "1,000", "10,000"} <= _texts(wide)
    # Narrow ranges have labels between the powers of ten.
    (narrow,) = dice_by_size({"m": {"box": _table([120, 1800])}})
    assert {"200", "500", "1,000"} <= _texts(narrow)
    (narrower,) = dice_by_size({"m": {"box": _table([210, 480])}})
    assert {"320", "400"} <= _texts(narrower)


def test_bins_with_few_objects_are_hollow() -> None:
    (drawn,) = dice_by_size({"m": {"box": _table([10] * FEW_OBJECTS + [1000] * (FEW_OBJECTS - 1))}})
    assert _marks(drawn, "#0072b2") == (1, 1)


def test_without_clicks_there_is_no_curve_of_clicks() -> None:
    assert dice_by_clicks({"m": {"box": _table([1, 2])}}) == []


def test_curve_of_clicks_is_the_class_mean() -> None:
    # Three objects of one class have Dice 0, and one of another class has 1: the mean over objects would be 0.25.
    dice = np.array([0.0, 0.0, 0.0, 1.0])
    uneven = replace(_table([1] * 4), class_id=np.array([1, 1, 1, 2]), clicks_dice=np.stack([dice, dice], 1))
    even = replace(uneven, clicks_dice=np.full((4, 2), 0.5))
    drawn, expected = (dice_by_clicks({"m": {"box": table}}) for table in (uneven, even))
    places = [re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', panels[0]) for panels in (drawn, expected)]
    assert places[0] == places[1] != []


def test_each_model_has_a_panel_of_its_own_and_each_prompt_a_color() -> None:
    models = [f"run{number}/best" for number in range(8)] + ["baseline:zero_shot", "baseline:box"]
    tables: Tables = {name: {kind: _table([10, 20], clicks=1) for kind in ("box", "centroid")} for name in models}
    styles = kind_styles(tables)
    assert len({style.color for style in styles.values()}) == len({style.marker for style in styles.values()}) == 2
    for panels in (dice_by_size(tables), dice_by_clicks(tables)):
        assert [[name for name in models if name in _texts(svg)] for svg in panels] == [[name] for name in models]
        for svg in panels:
            # Its own lines have the colors of their prompts; those of the nine others are gray.
            assert all(svg.count(f"stroke: {style.color}; stroke-width: 1.2") == 1 for style in styles.values())
            assert svg.count("stroke: #d0d0d0; stroke-width: 0.7") == 2 * 9


def test_a_class_has_a_row_for_each_model_and_a_dot_for_each_patient() -> None:
    table = replace(_table([10, 20, 30]), patient=np.array(["p", "p", "q"]))
    classes = {"tumor": _scores(), "stroma": _scores(patients=1)}
    models = {"m": {"box": {"classes": classes}}, "other": {"box": {"classes": {"tumor": _scores(0.7)}}}}
    tumor, stroma = dice_by_class(models, {"m": {"box": table}}, {1: "tumor", 2: "stroma"})
    assert {"tumor (3 patients)", "m", "other"} <= _texts(tumor)
    assert "stroma (1 patient)" in _texts(stroma)
    assert _marks(tumor, "#0072b2") == (2, 0)
    # One patient alone has no interval, so the mark is hollow. The model without that class has no mark.
    assert _marks(stroma, "#0072b2") == (0, 1)
    dots = "fill: #0072b2; fill-opacity: 0.45"
    assert tumor.count(dots) == 2
    assert dots not in stroma


def test_the_panel_tells_how_far_estimates_are_off() -> None:
    estimate = {
        "absolute_error": 0.25,
        "constant_error": 0.125,
        "bias": -0.05,
        "spearman": 0.5,
        "reliability": [{"estimate": 0.3, "iou": 0.4, "n": 3}, {"estimate": 0.8, "iou": 0.7, "n": 9}],
    }
    (drawn,) = iou_by_estimate({"m": {"box": {"overall": {"iou_estimate": estimate}}}})
    assert {"box: off by 0.250 (best constant 0.125), bias -0.050, rank", "correlation 0.50"} <= _texts(drawn)
    assert _marks(drawn, "#0072b2") == (1, 1)
    assert iou_by_estimate({"m": {"box": {"overall": {}}}}) == []


def test_panel_shows_characters_that_the_measuring_font_lacks() -> None:
    drawn = panel("腫瘍 < $x$", 1.0, [("血管", "#000000")])
    # Warnings are errors in tests, and a missing character is one.
    text = drawn.svg()
    assert "腫瘍 &lt; " in text
    assert "血管" in text
