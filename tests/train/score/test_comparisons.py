"""Differences between models: which is primary, how the others are adjusted, and how often equal models differ."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schemas.errors import ConfigError
from train.score.comparisons import (
    holm,
    paired_difference,
    paired_differences,
    planned_comparisons,
    with_best_baseline,
)
from train.score.score_table import ScoreTable
from train.statistics.estimate import object_mean

GROUPS = 10


def _table(dice: np.ndarray, patients: np.ndarray, classes: np.ndarray) -> ScoreTable:
    count = len(dice)
    return ScoreTable(
        tile_index=np.arange(count),
        object_id=np.ones(count, np.int64),
        class_id=classes,
        patient=patients,
        frame_id=np.full(count, "roi"),
        roi_component=np.zeros(count, np.int64),
        touches_edge=np.zeros(count, bool),
        area_px=np.ones(count, np.int64),
        dice=dice,
        iou=dice,
        surface_dice=np.full(count, np.nan),
        surface_curve=np.full((count, 4), np.nan),
        whole_iou=dice,
        iou_estimate=np.full(count, np.nan),
        clicks_dice=dice[:, None],
        clicks_iou=dice[:, None],
    )


def _tables(seed: int, names: list[str], kinds: Any, shift: float = 0.0) -> Any:
    """Equal models on the same objects; the first is better by `shift`."""
    generator = np.random.default_rng(seed)
    patients = np.repeat([f"p{number}" for number in range(GROUPS)], 6)
    classes = np.tile([1, 2], GROUPS * 3)
    base = generator.normal(0.7, 0.1, GROUPS).repeat(6)
    return {
        name: {
            kind: _table(
                base
                + generator.normal(0, 0.05, GROUPS).repeat(6)
                + generator.normal(0, 0.05, len(base))
                + shift * (name == names[0]),
                patients,
                classes,
            )
            for kind in kinds
        }
        for name in names
    }


def _compared(tables: Any, kinds: Any, primary: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    return paired_differences(tables, planned_comparisons(list(tables), kinds, primary))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    # A comparison without a p is a test all the same.
    assert holm([None, 0.02]) == [None, pytest.approx(0.04)]


def test_the_start_under_the_first_prompt_is_the_primary_comparison() -> None:
    names = ["best", "other", "baseline:box", "baseline:zero_shot"]
    found = _compared(_tables(0, names, ["box", "centroid"], 0.2), ["box", "centroid"])
    (primary,) = [entry for entry in found if entry["role"] == "primary"]
    assert (primary["model"], primary["minus"], primary["prompt"]) == ("best", "baseline:zero_shot", "box")
    assert primary["class_mean"]["level"] == 0.95
    others = [entry for entry in found if entry["role"] == "adjusted"]
    # Two models against the start and a baseline under two prompts, without the primary one.
    assert {entry["class_mean"]["level"] for entry in others} == {1 - 0.05 / 7}
    assert not any(entry["minus"] == "other" for entry in others)
    assert all(entry["class_mean"]["p"] >= primary["class_mean"]["p"] or entry["model"] == "best" for entry in others)
    assert primary["class_mean"]["interval"][0] > 0


def test_another_comparison_can_be_named_before() -> None:
    tables = _tables(0, ["a", "b", "baseline:box"], ["box", "centroid"])
    found = _compared(tables, ["box", "centroid"], ("b", "baseline:box", "centroid"))
    (primary,) = [entry for entry in found if entry["role"] == "primary"]
    assert (primary["model"], primary["minus"], primary["prompt"]) == ("b", "baseline:box", "centroid")
    with pytest.raises(ConfigError, match=r"--primary a,c,box: .*: a,baseline:box,box"):
        planned_comparisons(list(tables), ["box"], ("a", "c", "box"))
    # Two models are compared if that was chosen before scoring.
    assert str(planned_comparisons(list(tables), ["box"], ("a", "b", "box"))[0]) == "a,b,box"


def test_user_chooses_what_is_compared_with() -> None:
    names = ["a", "b", "c", "baseline:zero_shot", "baseline:box"]
    planned = planned_comparisons(names, ["box"], against=["c", "baseline:box"])
    assert sorted(map(str, planned)) == [
        "a,baseline:box,box",
        "a,c,box",
        "b,baseline:box,box",
        "b,c,box",
        "c,baseline:box,box",
    ]
    with pytest.raises(ConfigError, match="--against d"):
        planned_comparisons(names, ["box"], against=["d"])


def test_a_model_that_is_alone_cannot_be_compared_with_itself() -> None:
    models = ["run/best", "baseline:zero_shot", "baseline:box"]
    said = "--against run/best: leaves no model to compare with it; name one of these: baseline:zero_shot, baseline:box"
    with pytest.raises(ConfigError, match=said):
        planned_comparisons(models, ["box"], against=["run/best"])
    with pytest.raises(ConfigError, match="give another model with --checkpoint"):
        planned_comparisons(["baseline:box", "baseline:disc"], ["box"], against=["baseline:box"])


def test_models_are_compared_with_the_best_baseline_alone() -> None:
    names = ["a", "b", "baseline:zero_shot", "baseline:box", "baseline:image", "baseline:disc"]
    tables = _tables(0, ["baseline:image", *(name for name in names if name != "baseline:image")], ["box"], 0.3)
    planned = planned_comparisons(names, ["box"])
    assert len(planned) == 8
    kept = with_best_baseline(planned, tables)
    assert sorted(map(str, kept)) == [
        "a,baseline:image,box",
        "a,baseline:zero_shot,box",
        "b,baseline:image,box",
        "b,baseline:zero_shot,box",
    ]
    # Filling the box is the best here, but sees more of the truth than a click tells.
    tables = _tables(0, ["baseline:box", *(name for name in names if name != "baseline:box")], ["centroid"], 0.3)
    kept = with_best_baseline(planned_comparisons(["a", *names[2:]], ["centroid"]), tables)
    assert not any(pair.model == "a" and pair.minus == "baseline:box" for pair in kept)
    tables = _tables(0, ["baseline:image", *(name for name in names if name != "baseline:image")], ["box"], 0.3)
    asked = planned_comparisons(names, ["box"], against=["baseline:disc"])
    assert with_best_baseline(asked, tables, ["baseline:disc"]) == asked


def test_without_a_start_the_first_comparison_is_primary() -> None:
    found = _compared(_tables(0, ["a", "b"], ["box"]), ["box"])
    assert [(entry["minus"], entry["role"]) for entry in found] == [("b", "primary")]


@pytest.mark.parametrize(("kind", "rival"), [("box", "box"), ("centroid", "disc"), ("multi_point", "disc")])
def test_without_a_start_the_primary_rival_sees_no_more_than_the_prompt(kind: Any, rival: str) -> None:
    names = ["model", "baseline:box", "baseline:image", "baseline:disc"]
    primary = planned_comparisons(names, (kind,))[0]
    assert (primary.model, primary.minus, primary.kind) == ("model", f"baseline:{rival}", kind)


def test_the_primary_comparison_may_name_a_model_with_commas() -> None:
    names = ["lr1e-4,wd0.1/best", "baseline:box"]
    asked = "lr1e-4,wd0.1/best,baseline:box,box"
    assert str(planned_comparisons(names, ("box",), tuple(asked.split(",")))[0]) == asked


def test_equal_models_rarely_differ() -> None:
    names = ["a", "b", "c", "d"]
    kinds: list[Any] = ["box", "centroid"]
    adjusted = alone = 0
    for seed in range(300):
        found = _compared(_tables(seed, names, kinds), kinds)
        others = [entry["class_mean"] for entry in found if entry["role"] == "adjusted"]
        assert len(others) == 11
        adjusted += any(entry["p"] < 0.05 for entry in others)
        alone += any(abs(entry["dice"]) > 0 and not entry["ci95"][0] <= 0 <= entry["ci95"][1] for entry in found)
        for entry in others:
            excludes = not entry["interval"][0] <= 0 <= entry["interval"][1]
            # Bonferroni's interval never says more than Holm's p.
            assert not excludes or entry["p"] < 0.05
    # In four of ten tables, at least one of 12 unadjusted intervals excludes 0.
    assert alone / 300 > 0.25
    assert adjusted / 300 < 0.08


def test_the_object_mean_of_a_difference_is_reported_too() -> None:
    tables = _tables(4, ["a", "b"], ["box"])
    first, second = tables["a"]["box"], tables["b"]["box"]
    found = paired_difference(first, second)
    assert found["dice"] == pytest.approx((first.dice - second.dice).mean())
    assert found["ci95"] == object_mean(first.dice - second.dice, first.patient).interval()
    assert found["better_on"] == np.mean(first.dice > second.dice)
    with pytest.raises(AssertionError):
        paired_difference(first, replace(second, object_id=second.object_id + 1))


def test_baselines_alone_are_not_compared() -> None:
    assert planned_comparisons(["baseline:box", "baseline:image"], ["box"]) == []


def test_a_start_at_another_size_is_compared_only_if_asked() -> None:
    models = ["m", "baseline:zero_shot", "baseline:zero_shot@1024px", "baseline:box"]
    usual = planned_comparisons([name for name in models if "@" not in name], ("box",))
    assert planned_comparisons(models, ("box",)) == usual
    asked = planned_comparisons(models, ("box",), against=("baseline:zero_shot@1024px",))
    assert [(pair.model, pair.minus) for pair in asked] == [("m", "baseline:zero_shot@1024px")]


def test_each_of_eight_models_is_compared_with_its_own_start_alone() -> None:
    own = [f"run{number}/best" for number in range(8)]
    starts = ["baseline:untrained", *(f"baseline:untrained:{name}" for name in own[1:])]
    baselines = ["baseline:box", "baseline:image", "baseline:disc"]
    kinds: list[Any] = ["box", "centroid"]
    tables = _tables(0, [*own, *starts, *baselines], kinds)
    planned = planned_comparisons(list(tables), kinds, start_of=dict(zip(own, starts, strict=True)))
    kept = with_best_baseline(planned, tables)
    assert len(kept) == 32
    for model, start in zip(own, starts, strict=True):
        for kind in kinds:
            minus = [pair.minus for pair in kept if (pair.model, pair.kind) == (model, kind)]
            assert minus[0] == start
            assert len(minus) == 2
            assert minus[1] in baselines
    assert str(planned[0]) == "run0/best,baseline:untrained,box"


def test_a_model_without_a_start_is_compared_with_no_other_models_start() -> None:
    models = ["tuned", "official", "baseline:zero_shot", "baseline:untrained", "baseline:box"]
    planned = planned_comparisons(models, ["box"], start_of={"tuned": "baseline:zero_shot"})
    assert list(map(str, planned)) == [
        "tuned,baseline:zero_shot,box",
        "tuned,baseline:box,box",
        "official,baseline:box,box",
    ]
    # The models of one run share its start, which is the first one that is scored.
    planned = planned_comparisons(["best", "last", *models[2:]], ["box"])
    assert [str(pair) for pair in planned if "zero_shot" in str(pair)] == [
        "best,baseline:zero_shot,box",
        "last,baseline:zero_shot,box",
    ]
    assert not any("untrained" in str(pair) for pair in planned)


def test_two_models_are_compared_once() -> None:
    planned = planned_comparisons(["a", "b", "baseline:box"], ["box"], against=["a", "b"])
    assert list(map(str, planned)) == ["a,b,box"]
