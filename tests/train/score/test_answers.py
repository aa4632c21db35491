from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.errors import StoreError
from schemas.store.store import Store
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.score.answers import (
    score_tiles,
    tile_prompts,
    tiles_with_objects,
)
from train.score.protocol import ScoringProtocol


@pytest.fixture
def predictors(nano: PromptableSam) -> dict[str, MaskPredictor]:
    return {"a": MaskPredictor(nano, torch.device("cpu")), "b": MaskPredictor(nano, torch.device("cpu"))}


def test_each_model_and_baseline_answers_each_kind_once_per_tile(
    store: Store, predictors: dict[str, MaskPredictor]
) -> None:
    tiles = tiles_with_objects(store, "val")[:2].tolist()
    protocol = ScoringProtocol("val", ("box", "multi_point"), True, baselines=("image",))
    found = [
        (s.answer.question.index, s.answer.question.kind, s.answer.model)
        for s in score_tiles(store, tiles, predictors, protocol)
    ]
    expected = [(t, k, m) for t in tiles for k in ("box", "multi_point") for m in ("a", "b", "baseline:image")]
    assert found == expected


def test_all_are_asked_the_stored_prompt_in_the_order_of_objects(
    store: Store, predictors: dict[str, MaskPredictor]
) -> None:
    tiles = tiles_with_objects(store, "val")[:2].tolist()
    for scored in score_tiles(store, tiles, predictors, ScoringProtocol("val", ("multi_point",), True)):
        question = scored.answer.question
        stored = store.prompts(question.index, "multi_point", negatives=True)
        assert question.object_ids.tolist() == scored.record.object_ids.tolist()
        for object_id, prompt in zip(question.object_ids, question.prompts, strict=True):
            np.testing.assert_array_equal(prompt["point_coords"], stored[int(object_id)]["point_coords"])
            np.testing.assert_array_equal(prompt["point_labels"], stored[int(object_id)]["point_labels"])


def test_kinds_share_one_encoding_of_a_tile(store: Store, nano: PromptableSam) -> None:
    calls: list[int] = []
    handle = nano.sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    tiles = tiles_with_objects(store, "val")[:3].tolist()
    protocol = ScoringProtocol("val", ("box", "centroid", "multi_point"), corrections=1)
    predictor = MaskPredictor(nano, torch.device("cpu"))
    list(score_tiles(store, tiles, {"m": predictor}, protocol))
    assert len(calls) == 3
    list(score_tiles(store, tiles[:1], {"m": predictor}, ScoringProtocol("val", ("box", "centroid"), tta=True)))
    handle.remove()
    assert len(calls) == 3 + 8


def test_each_model_and_kind_has_its_own_threshold(store: Store, predictors: dict[str, MaskPredictor]) -> None:
    tiles = tiles_with_objects(store, "val")[:1].tolist()
    protocol = ScoringProtocol("val", ("box", "centroid"), baselines=(), thresholds={("a", "box"): 1e6})
    answers = [scored.answer for scored in score_tiles(store, tiles, predictors, protocol)]
    empty = {(answer.model, answer.question.kind): not answer.masks.any() for answer in answers}
    assert empty == {("a", "box"): True, ("a", "centroid"): False, ("b", "box"): False, ("b", "centroid"): False}


def test_a_tolerance_in_micrometers_needs_the_resolution(store: Store, predictors: dict[str, MaskPredictor]) -> None:
    tiles = tiles_with_objects(store, "val")[:1].tolist()

    def outlines(tolerance_um: float | None) -> np.ndarray:
        protocol = ScoringProtocol("val", ("box",), baselines=("box",), tolerance_um=tolerance_um)
        return next(iter(score_tiles(store, tiles, {}, protocol))).scores.surface_dice

    assert np.isnan(outlines(None)).all()
    # A pixel of the sample is 0.25 um wide, so 0.2 um is less than a pixel. The tile is 32 um wide, so that no pixel is
    # farther than 16 um from its edge.
    assert np.isnan(outlines(16.1)).all()
    assert (outlines(0.2) < 1).any()
    assert (outlines(2.0) > outlines(0.2)).any()


def test_asking_for_negatives_that_the_store_lacks_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(0 in p["point_labels"] for p in tile_prompts(store, store[0], "box", negatives=True))
    poor = store.manifest.model_copy(update={"negative_points": 0})
    monkeypatch.setitem(store.__dict__, "manifest", poor)
    with pytest.raises(StoreError, match="has no negative points"):
        tile_prompts(store, store[0], "box", negatives=True)


def test_the_iou_estimate_is_left_out_where_it_belongs_to_another_mask(store: Store, nano: PromptableSam) -> None:
    predictors = {"m": MaskPredictor(nano, torch.device("cpu"))}
    tiles = tiles_with_objects(store, "val")[:1].tolist()

    def estimates(protocol: ScoringProtocol) -> np.ndarray:
        return next(iter(score_tiles(store, tiles, predictors, protocol))).scores.iou_estimate

    plain = ScoringProtocol("val", ("box",), baselines=())
    assert not np.isnan(estimates(plain)).any()
    assert np.isnan(estimates(replace(plain, tta=True))).all()
    assert np.isnan(estimates(replace(plain, thresholds={("m", "box"): 0.5}))).all()
