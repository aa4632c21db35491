from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import ConfigError
from schemas.record import Record
from schemas.store.store import Store, open_store
from schemas.store.tile import Tile
from train.backbone.nano_start import NANO_START
from train.model.loading import load_mask_predictor
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.score.evaluate import evaluate
from train.score.protocol import ScoringProtocol
from train.score.thresholds import CANDIDATE_THRESHOLDS, with_thresholds


def test_the_threshold_is_chosen_on_val_alone(store: Store, nano: PromptableSam, monkeypatch) -> None:
    predictors = {"model": MaskPredictor(nano, torch.device("cpu"))}
    read: list[str] = []
    original = Tile.record

    def spied(self: Tile, object_ids: Collection[int] | None = None) -> Record:
        record = original(self, object_ids)
        read.append(record.split)
        return record

    monkeypatch.setattr(Tile, "record", spied)
    asked = ScoringProtocol("test", ("box",), baselines=("box",), corrections=1)
    chosen = with_thresholds("val", store, predictors, asked)
    assert set(read) == {"val"}
    assert replace(chosen, thresholds={}) == asked
    on_val = replace(chosen, split="val", corrections=0)
    (best,) = chosen.thresholds.values()
    assert best in CANDIDATE_THRESHOLDS

    def dice(threshold: float) -> float:
        protocol = replace(on_val, thresholds={("model", "box"): threshold})
        return evaluate(store, predictors, protocol).result["models"]["model"]["box"]["overall"]["dice"]

    assert dice(best) >= max(dice(other) for other in (-3.0, 0.0, 3.0))


@pytest.mark.parametrize("split", ["val", "all"])
def test_a_threshold_is_not_tuned_on_the_scored_split(store: Store, split: str) -> None:
    with pytest.raises(ConfigError, match="cannot tune the threshold on the split that is being scored"):
        with_thresholds("val", store, {}, ScoringProtocol(split, ("box",)))


def test_a_number_is_the_threshold_of_all_models_and_kinds(store: Store, nano: PromptableSam) -> None:
    predictors = {"a": MaskPredictor(nano, torch.device("cpu"))}
    protocol = with_thresholds("-0.5", store, predictors, ScoringProtocol("test", ("box", "centroid")))
    assert protocol.thresholds == {("a", "box"): -0.5, ("a", "centroid"): -0.5}


def test_the_threshold_maximizes_the_reported_number(sample_source: Path, tmp_path: Path) -> None:
    # Each component lies in several tiles, and the classes have different numbers of components.
    settings = {"size_px": 128, "stride_px": 64, "objects": "component"}
    build_store(sample_source, tmp_path / "s.zarr", BuildConfig.model_validate(settings))
    predictors = {"m": load_mask_predictor(NANO_START, torch.device("cpu"))}
    store = open_store(tmp_path / "s.zarr")
    chosen = with_thresholds("val", store, predictors, ScoringProtocol("test", ("box",), baselines=()))
    (best,) = chosen.thresholds.values()

    def class_mean(threshold: float) -> float:
        protocol = ScoringProtocol("val", ("box",), baselines=(), thresholds={("m", "box"): threshold})
        overall = evaluate(store, predictors, protocol).result["models"]["m"]["box"]["overall"]
        return overall["class_mean"]["dice"]["value"]

    near = [threshold for threshold in CANDIDATE_THRESHOLDS if abs(threshold - best) <= 0.5]
    assert class_mean(best) == max(map(class_mean, near))
