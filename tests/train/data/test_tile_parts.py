"""A tile with many objects is scored and written in parts, as it would be at once and in less memory."""

import tracemalloc
from dataclasses import fields
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from prep.build import build_store
from prep.config import BuildConfig
from schemas.record import Record
from schemas.store.store import Store, open_store
from tests.folders import bytes_of
from train.choices import BASELINES
from train.data import tile_parts
from train.data.tile_parts import TilePart, read_parts
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.output.object_pictures import object_pictures
from train.output.writers import WrittenModels, evaluation_writers, roi_scorer
from train.score.evaluate import Evaluation, evaluate
from train.score.protocol import ScoringProtocol
from train.score.score_table import ScoreTable

ALL = WrittenModels(BASELINES)


@pytest.fixture(scope="module")
def components(sample_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of connected components, several of a class in a tile; tiles overlap."""
    path = tmp_path_factory.mktemp("components") / "s.zarr"
    config = {"size_px": 128, "stride_px": 96, "objects": "component", "min_area_px": 16}
    build_store(sample_source, path, BuildConfig.model_validate(config))
    return open_store(path)


def _in_parts_of(objects: int, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_parts, "MAX_PART_BYTES", objects * store.manifest.tile_size_px**2)


@pytest.mark.parametrize("workers", [0, 1])
def test_parts_have_every_object_once(components: Store, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    _in_parts_of(2, components, monkeypatch)
    index = int(np.argmax(np.diff(components.column("tiles/object_offsets"))))
    whole = components[index]
    parts = list(read_parts(components, [index], workers))
    assert len(parts) > 2
    assert [part.more_follow for part, _ in parts] == [True] * (len(parts) - 1) + [False]
    assert max(len(record.segments) for _, record in parts) == 2
    for name in ("segments", "object_ids", "class_ids", "boxes_xyxy"):
        joined = np.concatenate([getattr(record, name) for _, record in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert all(np.array_equal(record.image, whole.image) for _, record in parts)


def test_threads_read_at_once_and_keep_the_order(components: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    all_three = Barrier(3, timeout=60)

    def record(store: Store, part: TilePart) -> Record:
        all_three.wait()
        return store[part.index]

    monkeypatch.setattr(tile_parts, "_record", record)
    parts = list(read_parts(components, range(6), workers=3))
    assert [part.index for part, _ in parts] == [*range(6)]
    assert all(np.array_equal(record.image, components[part.index].image) for part, record in parts)


def test_an_evaluation_in_parts_writes_the_same_files_and_pictures(
    components: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _evaluated(components, tmp_path / "whole", {})
    for objects in (1, 2, 3):
        _in_parts_of(objects, components, monkeypatch)
        again = _evaluated(components, tmp_path / str(objects), {})
        assert bytes_of(tmp_path / str(objects)) == bytes_of(tmp_path / "whole")
        assert again.result == whole.result
        np.testing.assert_array_equal(again.panels, whole.panels)


def test_a_model_scores_the_same_in_parts(
    components: Store, nano: PromptableSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictors = {"m": MaskPredictor(nano, torch.device("cpu"))}
    whole = _evaluated(components, tmp_path / "whole", predictors)
    _in_parts_of(3, components, monkeypatch)
    again = _evaluated(components, tmp_path / "parts", predictors)
    for kind, table in whole.tables["m"].items():
        for column in fields(ScoreTable):
            ours, theirs = (getattr(found, column.name) for found in (again.tables["m"][kind], table))
            if ours.dtype.kind == "f":
                # A pass of the decoder over other objects may round otherwise.
                np.testing.assert_allclose(ours, theirs, atol=1e-3)
            else:
                np.testing.assert_array_equal(ours, theirs)


def test_memory_grows_with_the_objects_of_a_part(write_roi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A mask of instances: 400 squares, each of a class of its own.
    numbers = np.arange(1, 401, dtype=np.uint16).reshape(20, 20)
    source = write_roi("a", np.kron(numbers, np.pad(np.ones((10, 10), np.uint16), 1)))
    config = BuildConfig(size_px=240, classes=tuple(range(1, 401)), ignore=())
    build_store(source, tmp_path / "s.zarr", config)
    store = open_store(tmp_path / "s.zarr")
    _in_parts_of(8, store, monkeypatch)
    out = tmp_path / "out"
    sinks = (*evaluation_writers(store, out, ALL, save_masks=True), roi_scorer(store, out, ALL, None))
    tracemalloc.start()
    found = evaluate(store, {}, ScoringProtocol("train", ("box",), baselines=("box",)), sinks=sinks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.result["models"]["baseline:box"]["box"]["overall"]["dice"] == 1
    # The masks of all objects would take 400 times the pixels, several times over.
    assert peak < 300 * 240**2


def test_pictures_of_objects_show_tiles_with_many_objects(
    components: Store, nano: PromptableSam, tmp_path: Path
) -> None:
    predictors = {"m": MaskPredictor(nano, torch.device("cpu"))}
    protocol = ScoringProtocol("test", ("box",), baselines=())
    shown = object_pictures(components, evaluate(components, predictors, protocol), predictors, protocol)
    assert [len(entry["pictures"]) for entry in shown] == [4, 4, 4]
    assert len({picture["jpeg"] for entry in shown for picture in entry["pictures"]}) > 4


def _evaluated(store: Store, out: Path, predictors: dict[str, MaskPredictor]) -> Evaluation:
    sinks = (*evaluation_writers(store, out, ALL, save_masks=True), roi_scorer(store, out, ALL, None))
    protocol = ScoringProtocol("test", ("box", "centroid"), baselines=("box", "disc"), corrections=1, tolerance_um=2.0)
    return evaluate(store, predictors, protocol, sinks=sinks)
