from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.points import Prompt
from schemas.prompt_kinds import PointLabel, PromptKind
from schemas.store.store import Store
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.score.answers import tile_prompts, tiles_with_objects
from train.score.evaluate import evaluate
from train.score.jitter import jittered
from train.score.protocol import ScoringProtocol
from train.score.tile_answer import Question


def _moves(store: Store, index: int, kind: PromptKind, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the moves of all points of a tile's prompts, (n, 2), and the width and height of their boxes, (n, 2)."""
    record = store[index]
    question = Question.from_record(record, kind, tile_prompts(store, record, kind, negatives=False))
    moved = jittered(question, record, share)
    assert moved.jitter == share
    pairs = list(zip(question.prompts, moved.prompts, record.boxes_xyxy, strict=True))
    for before, after, _ in pairs:
        assert (after["point_labels"] == before["point_labels"]).all()
        assert after["point_coords"].dtype == np.float32
        assert (after["point_coords"] >= 0).all()
        assert (after["point_coords"] <= 127).all()
    sizes = [np.tile(box[2:] - box[:2] + 1, (len(before["point_coords"]), 1)) for before, _, box in pairs]
    moves = [after["point_coords"] - before["point_coords"] for before, after, _ in pairs]
    return np.concatenate(moves), np.concatenate(sizes)


@pytest.mark.parametrize("kind", ["box", "centroid"])
def test_points_move_by_at_most_the_share_of_the_object(store: Store, kind: PromptKind) -> None:
    moves, sizes = (
        np.concatenate(parts) for parts in zip(*(_moves(store, n, kind, 0.2) for n in range(6)), strict=True)
    )
    assert (np.abs(moves) <= 0.2 * sizes + 0.5).all()
    assert np.abs(moves / sizes).max() > 0.12
    assert abs((moves / sizes).mean()) < 0.05


def test_moves_depend_on_tile_and_object_alone(store: Store) -> None:
    small, sizes = _moves(store, 0, "box", 0.1)
    again, _ = _moves(store, 0, "box", 0.1)
    large, _ = _moves(store, 0, "box", 0.2)
    other, _ = _moves(store, 1, "box", 0.1)
    np.testing.assert_array_equal(small, again)
    assert small.shape != other.shape or (small != other).any()
    # A larger share moves the same way, but for whole pixels and the edge of the tile.
    assert (np.sign(small) * np.sign(large) >= 0).all()
    assert (np.abs(large) + 0.5 >= np.abs(small)).all()
    assert sizes.shape == small.shape


def test_scores_under_moved_prompts_stand_beside_the_others(store: Store, nano: PromptableSam) -> None:
    predictors = {"m": MaskPredictor(nano, torch.device("cpu"))}
    protocol = ScoringProtocol("val", ("box",), tolerance_um=2.0)
    exact = evaluate(store, predictors, protocol).result
    moved = evaluate(store, predictors, ScoringProtocol("val", ("box",), jitter=(0.05, 0.3), tolerance_um=2.0)).result
    assert moved["models"] == exact["models"]
    assert "jitter" not in exact
    assert list(moved["jitter"]) == ["m"]
    found = moved["jitter"]["m"]["box"]
    assert list(found) == ["0.05", "0.3"]
    for scores in found.values():
        assert scores["overall"]["n"] == exact["models"]["m"]["box"]["overall"]["n"]
        mean, before = (own["overall"]["class_mean"]["dice"]["value"] for own in (scores, exact["models"]["m"]["box"]))
        assert scores["change"]["value"] == pytest.approx(mean - before)
        assert scores["overall"]["class_mean"]["dice"]["ci95"] is not None or scores["change"]["ci95"] is None
    assert found["0.05"]["overall"]["dice"] != found["0.3"]["overall"]["dice"]
    assert len(tiles_with_objects(store, "val")) == moved["protocol"]["tiles"]


def test_corners_of_a_small_box_stay_in_order(store: Store) -> None:
    record = store[0]
    prompt = Prompt(
        point_coords=np.array([[60, 60], [61, 61]], np.float32),
        point_labels=np.array([PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT], np.int32),
    )
    swapped = 0
    for number in range(300):
        small = replace(
            record,
            index=number,
            object_ids=record.object_ids[:1],
            boxes_xyxy=np.array([[60, 60, 61, 61]], record.boxes_xyxy.dtype),
        )
        question = replace(Question.from_record(record, "box", []), index=number, prompts=[prompt])
        (moved,) = jittered(question, small, 0.45).prompts
        generator = np.random.default_rng([number, int(record.object_ids[0])])
        unsorted = np.rint(prompt["point_coords"] + generator.uniform(-1, 1, (2, 2)) * 0.45 * 2)
        swapped += bool((unsorted[0] > unsorted[1]).any())
        np.testing.assert_array_equal(moved["point_coords"], np.sort(unsorted, axis=0))
    assert swapped
