"""A checkpoint with random weights, and a tile of the store as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from schemas.store.store import Store
from tests.programs import run_train
from train.backbone.nano_start import NANO_START
from train.model.promptable import PromptableSam
from train.model.trained_on import TrainedOn
from train.predict import ImagePredictor, load_predictor


@pytest.fixture(scope="session")
def checkpoint(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of nano at 128 px with random weights, as `fit` writes it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    model = PromptableSam("nano", 128)
    known = TrainedOn.of(store.manifest, "box").content()
    torch.save({"model": model.sam.state_dict(), "model_size": "nano", "image_size": 128, "trained_on": known}, path)
    return path


@pytest.fixture(scope="session")
def predictor(checkpoint: Path) -> ImagePredictor:
    """The model of the checkpoint. Tests share it and must not change it."""
    return load_predictor(checkpoint, "cpu")


@pytest.fixture(scope="session")
def trained_predictor() -> ImagePredictor:
    """The start of the project, whose masks differ from click to click. Tests share it and must not change it."""
    return load_predictor(NANO_START, "cpu")


@pytest.fixture
def tile(store: Store, tmp_path: Path) -> tuple[Path, Path, int]:
    """A tile as `tile.png`, its boxes as `boxes.geojson`, and its index."""
    index = max(range(len(store)), key=lambda number: len(store.tile(number).classes))
    record = store[index]
    Image.fromarray(record.image).save(tmp_path / "tile.png")
    boxes = [(x0, y0, x1 + 1, y1 + 1) for x0, y0, x1, y1 in record.boxes_xyxy.tolist()]
    features = [rectangle(box, f"class {code}") for box, code in zip(boxes, record.class_ids.tolist(), strict=True)]
    write_geojson(tmp_path / "boxes.geojson", features)
    return tmp_path / "tile.png", tmp_path / "boxes.geojson", index


def run_predict(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `bcss-train predict` on the CPU, and return its exit status."""
    return run_train(monkeypatch, "predict", *arguments, "--device", "cpu")


def rectangle(box: tuple[float, float, float, float], name: str | None = None) -> dict[str, Any]:
    """A rectangle as QuPath exports it, from left, top to right, bottom."""
    left, top, right, bottom = box
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return feature({"type": "Polygon", "coordinates": [ring]}, name)


def feature(geometry: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """A feature with a class."""
    properties: dict[str, Any] = {"objectType": "annotation"}
    if name:
        properties["classification"] = {"name": name, "color": [10, 20, 30]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write_geojson(path: Path, features: list[dict[str, Any]]) -> None:
    """Write features to a file."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
