"""Other tools compute our scores from the masks that are written."""

import contextlib
import csv
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

from prep.build import build_store
from prep.config import BuildConfig
from schemas.store.store import Store, open_store
from train.choices import BASELINES
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.output.evaluation_files import write_evaluation
from train.output.writers import WrittenModels, evaluation_writers
from train.score.evaluate import evaluate
from train.score.protocol import ScoringProtocol

Row = dict[str, str]


@pytest.fixture(scope="module")
def store(sample_source: Path, module_path: Path) -> Store:
    """A store whose tiles do not overlap, so that every object is scored on all of its pixels."""
    build_store(sample_source, module_path / "padded.zarr", BuildConfig(size_px=128, edge="pad"))
    return open_store(module_path / "padded.zarr")


@pytest.fixture(scope="module")
def written(store: Store, nano: PromptableSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an evaluation of a model and two baselines, with its masks."""
    out = tmp_path_factory.mktemp("written")
    protocol = ScoringProtocol("test", ("box", "centroid"), baselines=("box", "disc"))
    sinks = evaluation_writers(store, out, WrittenModels(BASELINES), save_masks=True)
    predictors = {"runs/a:b": MaskPredictor(nano, torch.device("cpu"))}
    write_evaluation(evaluate(store, predictors, protocol, sinks=sinks), out)
    return out


def _rows(out: Path) -> dict[tuple[str, str, int, int], Row]:
    with (out / "objects.csv").open(newline="") as file:
        return {(r["model"], r["prompt"], int(r["tile_index"]), int(r["object_id"])): r for r in csv.DictReader(file)}


def _folders(out: Path) -> dict[tuple[str, str], Path]:
    models = {"runs/a:b": "runs_a_b", "baseline:box": "baseline_box", "baseline:disc": "baseline_disc"}
    return {
        (name, kind): out / "masks" / folder / kind for name, folder in models.items() for kind in ("box", "centroid")
    }


def _decoded(code: Any) -> np.ndarray:
    with warnings.catch_warnings():
        # pycocotools calls NumPy in a way that NumPy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco_mask.decode(code).astype(bool)


def _object_ids(store: Store, truth: list[dict[str, int]]) -> dict[int, tuple[int, int]]:
    """Tile and object id of each annotation; a tile's annotations are in the order of its objects."""
    found: dict[int, tuple[int, int]] = {}
    for tile in {entry["image_id"] for entry in truth}:
        own = [entry["id"] for entry in truth if entry["image_id"] == tile]
        found |= {number: (tile, int(i)) for number, i in zip(own, store[tile].object_ids, strict=True)}
    return found


def test_pycocotools_agrees_on_iou_and_dice(store: Store, written: Path) -> None:
    rows, compared = _rows(written), 0
    truth = json.loads((written / "masks" / "truth.json").read_text())["annotations"]
    places, by_id = _object_ids(store, truth), {entry["id"]: entry for entry in truth}
    for (model, kind), folder in _folders(written).items():
        for found in json.loads((folder / "results.json").read_text()):
            expected = by_id[found["id"]]
            assert (found["image_id"], found["category_id"]) == (expected["image_id"], expected["category_id"])
            row = rows[model, kind, *places[found["id"]]]
            iou = np.asarray(coco_mask.iou([found["segmentation"]], [expected["segmentation"]], [0])).item()
            assert float(row["iou"]) == pytest.approx(iou, abs=1e-6)
            assert float(row["dice"]) == pytest.approx(2 * iou / (1 + iou), abs=1e-6)
            assert int(row["area_px"]) == expected["area"] == coco_mask.area(expected["segmentation"])
            assert expected["bbox"] == coco_mask.toBbox(expected["segmentation"]).tolist()
            compared += 1
    assert compared == len(rows)


def test_torchmetrics_agrees_on_the_pixels_that_count(store: Store, written: Path) -> None:
    rows = _rows(written)
    truth = json.loads((written / "masks" / "truth.json").read_text())["annotations"]
    places = _object_ids(store, truth)
    for (model, kind), folder in _folders(written).items():
        for found in json.loads((folder / "results.json").read_text()):
            tile, object_id = places[found["id"]]
            record = store[tile]
            counts = torch.from_numpy(~record.ignore)
            segment = torch.from_numpy(store.tile(tile).segments([object_id])[0])[counts]
            mask = torch.from_numpy(_decoded(found["segmentation"]))[counts]
            row = rows[model, kind, tile, object_id]
            assert float(row["iou"]) == pytest.approx(BinaryJaccardIndex()(mask, segment).item(), abs=1e-6)
            assert float(row["dice"]) == pytest.approx(BinaryF1Score()(mask, segment).item(), abs=1e-6)


def test_the_means_of_metrics_json_are_those_of_objects_csv(written: Path) -> None:
    models = json.loads((written / "metrics.json").read_text())["models"]
    rows = _rows(written)
    for model, kind in _folders(written):
        own = [row for (name, prompt, _, _), row in rows.items() if (name, prompt) == (model, kind)]
        for measure in ("dice", "iou"):
            mean = np.mean([float(row[measure]) for row in own])
            assert models[model][kind]["overall"][measure] == pytest.approx(mean, abs=1e-9)


def test_pycocotools_loads_truth_and_results(store: Store, written: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(written / "masks" / "truth.json"))
        found = truth.loadRes(str(written / "masks" / "baseline_box" / "box" / "results.json"))
    assert {entry["name"] for entry in truth.dataset["categories"]} == {info.name for info in store.manifest.classes}
    assert len(found.getAnnIds()) == len(truth.getAnnIds())
    for number in truth.getImgIds():
        entry = truth.loadImgs(number)[0]
        assert (entry["width"], entry["height"]) == (128, 128)
        assert (written / "masks" / "baseline_box" / "box" / entry["file_name"]).exists()


def test_a_model_scores_its_masks_and_a_baseline_is_certain(written: Path) -> None:
    folders = _folders(written)
    scores = [entry["score"] for entry in json.loads((folders["runs/a:b", "box"] / "results.json").read_text())]
    estimates = [float(row["iou_estimate"]) for key, row in _rows(written).items() if key[:2] == ("runs/a:b", "box")]
    assert sorted(scores) == pytest.approx(sorted(estimates))
    baseline = json.loads((folders["baseline:box", "box"] / "results.json").read_text())
    assert {entry["score"] for entry in baseline} == {1.0}


def test_png_has_the_sources_palette_and_the_smallest_mask_on_top(
    store: Store, sample_source: Path, written: Path
) -> None:
    entry = json.loads((written / "masks" / "truth.json").read_text())["images"][0]
    record = store[entry["id"]]
    with Image.open(written / "masks" / "baseline_box" / "box" / entry["file_name"]) as picture:
        with Image.open(sample_source / "masks" / f"{record.frame_id}.png") as source:
            assert picture.mode == "P"
            own = source.getpalette() or []
            assert own
            assert (picture.getpalette() or [])[: len(own)] == own
        codes = np.asarray(picture)
    sides = [(right - left + 1) * (bottom - top + 1) for left, top, right, bottom in record.boxes_xyxy]
    expected = np.zeros_like(codes)
    for row in np.argsort(sides)[::-1]:
        left, top, right, bottom = record.boxes_xyxy[row]
        expected[top : bottom + 1, left : right + 1] = record.class_ids[row]
    np.testing.assert_array_equal(codes, expected)
