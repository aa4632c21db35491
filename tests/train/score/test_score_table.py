import json
from dataclasses import fields, replace

import numpy as np
import pytest

from schemas.store.store import Store
from train.score.metrics import score_masks
from train.score.score_table import ScoreTable
from train.statistics.estimate import class_mean, object_mean, patient_mean

NAMES = {1: "tumor", 2: "stroma", 3: "absent"}


@pytest.fixture
def table() -> ScoreTable:
    """Five objects of two classes and three patients."""
    dice = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    return ScoreTable(
        tile_index=np.array([0, 0, 1, 2, 2]),
        object_id=np.array([1, 2, 1, 1, 2]),
        class_id=np.array([1, 2, 1, 1, 2]),
        patient=np.array(["a", "a", "b", "c", "c"]),
        frame_id=np.full(5, "roi"),
        roi_component=np.zeros(5, np.int64),
        touches_edge=np.zeros(5, bool),
        area_px=np.array([10, 20, 30, 40, 50]),
        dice=dice,
        iou=dice / 2,
        surface_dice=np.full(5, np.nan),
        surface_curve=np.full((5, 4), np.nan),
        whole_iou=dice / 2,
        iou_estimate=dice / 2 + np.array([0.1, -0.1, 0.1, 0.1, 0.1]),
        clicks_dice=np.column_stack([dice, dice, (dice + 1) / 2, np.ones(5)]),
        clicks_iou=np.column_stack([dice / 2, dice / 2, dice, np.ones(5)]),
    )


def _rows(table: ScoreTable, rows: slice | list[int]) -> ScoreTable:
    return ScoreTable(**{field.name: getattr(table, field.name)[rows] for field in fields(table)})


def test_means_are_over_objects_and_by_class(table: ScoreTable) -> None:
    summary = table.summary(NAMES)
    overall = summary["overall"]
    assert (overall["dice"], overall["iou"]) == (pytest.approx(0.6), pytest.approx(0.3))
    assert (overall["n"], overall["patients"]) == (5, 3)
    assert overall["ci95"]["dice"] == object_mean(table.dice, table.patient).share_interval()
    assert set(summary["classes"]) == {"tumor", "stroma"}
    tumor, stroma = summary["classes"]["tumor"], summary["classes"]["stroma"]
    assert (tumor["dice"], tumor["n"], tumor["patients"]) == (pytest.approx(1.6 / 3), 3, 3)
    assert (stroma["dice"], stroma["n"], stroma["patients"]) == (pytest.approx(0.7), 2, 2)


def test_the_error_of_iou_estimates_has_a_size_and_a_sign(table: ScoreTable) -> None:
    estimate = table.summary(NAMES)["overall"]["iou_estimate"]
    assert estimate["absolute_error"] == pytest.approx(0.1)
    assert estimate["bias"] == pytest.approx(0.06)
    assert estimate["ci95"]["absolute_error"] == pytest.approx((0.1, 0.1))
    assert estimate["ci95"]["bias"] == object_mean(table.iou_estimate - table.iou, table.patient).interval()
    silent = replace(table, iou_estimate=np.full(5, np.nan))
    assert "iou_estimate" not in silent.summary(NAMES)["overall"]


def test_outlines_are_reported_where_they_were_measured(table: ScoreTable) -> None:
    assert "surface_dice" not in table.summary(NAMES)["overall"]
    measured = replace(table, surface_dice=np.array([0.1, 0.2, 0.3, np.nan, np.nan]))
    overall = measured.summary(NAMES)["overall"]
    assert overall["surface_dice"] == pytest.approx(0.2)
    assert overall["ci95"]["surface_dice"] is not None
    # If the name of a ROI does not give its resolution, surface Dice is NaN, which JSON does not allow.
    json.dumps(measured.summary(NAMES), allow_nan=False)


def test_clicks_are_reported_as_far_as_they_were_made(table: ScoreTable) -> None:
    assert table.summary(NAMES)["overall"]["dice_after_clicks"] == pytest.approx({"0": 0.6, "1": 0.6, "3": 1.0})
    # Before the first click, each mean is the one without clicks.
    for means in (overall := table.summary(NAMES)["overall"], *table.summary(NAMES)["classes"].values()):
        assert means["class_mean_after_clicks"]["0"] == means["class_mean"]["dice"]
    assert overall["class_mean_after_clicks"]["3"]["value"] == 1
    two = replace(table, clicks_dice=table.clicks_dice[:, :3], clicks_iou=table.clicks_iou[:, :3])
    assert list(two.summary(NAMES)["overall"]["dice_after_clicks"]) == ["0", "1", "2"]
    without = replace(table, clicks_dice=table.dice[:, None])
    assert "dice_after_clicks" not in without.summary(NAMES)["overall"]


def test_joined_does_not_depend_on_the_order_of_parts(table: ScoreTable) -> None:
    parts = [_rows(table, [2]), _rows(table, [4, 3]), _rows(table, [1, 0])]
    for order in (parts, parts[::-1]):
        joined = ScoreTable.joined(order)
        for field in fields(table):
            np.testing.assert_array_equal(getattr(joined, field.name), getattr(table, field.name))


def test_of_tile_takes_the_pixels_that_count(store: Store) -> None:
    record = next(record for record in store if (record.segments & ~record.ignore).any() and record.ignore.any())
    segments = record.segments.copy()
    segments[0] |= record.ignore
    record = replace(record, segments=segments)
    table = ScoreTable.of_tile(record, score_masks(segments, segments, record.ignore))
    assert table.area_px.tolist() == (segments & ~record.ignore).sum((1, 2)).tolist()
    assert table.object_id.tolist() == record.object_ids.tolist()
    assert set(table.patient) == {record.patient}
    assert np.isnan(table.iou_estimate).all()
    np.testing.assert_array_equal(table.clicks_dice, np.ones((len(segments), 1)))


def test_the_primary_number_stands_beside_the_mean_over_objects(table: ScoreTable) -> None:
    overall = table.summary(NAMES)["overall"]
    assert overall["class_mean"]["dice"] == class_mean(table.dice, table.patient, table.class_id).as_json()
    assert overall["patient_mean"]["iou"] == patient_mean(table.iou, table.patient).as_json()
    # The class of two patients decides what the interval can say.
    assert overall["class_mean"]["dice"]["fewest_patients"] == 2
    assert overall["class_mean"]["dice"]["few_patients"]


def test_each_measure_says_how_many_objects_and_patients_it_has(table: ScoreTable) -> None:
    measured = replace(table, surface_dice=np.array([0.1, 0.2, 0.3, np.nan, np.nan]))
    counts = measured.summary(NAMES)["overall"]["counts"]
    assert counts["dice"] == {"n": 5, "patients": 3}
    assert counts["surface_dice"] == {"n": 3, "patients": 2}


def test_complete_objects_are_also_reported_alone(table: ScoreTable) -> None:
    cut = replace(table, touches_edge=np.array([True, False, False, False, True]))
    overall = cut.summary(NAMES)["overall"]
    assert overall["n"] == 5
    complete = overall["complete"]
    assert (complete["n"], complete["patients"]) == (3, 3)
    # Tumor of the patients b and c, stroma of a.
    assert complete["class_mean"]["dice"]["value"] == pytest.approx(((0.6 + 0.8) / 2 + 0.4) / 2)
    nothing = replace(table, touches_edge=np.ones(5, bool)).summary(NAMES)["overall"]["complete"]
    assert nothing == {"n": 0, "patients": 0, "class_mean": {}}
