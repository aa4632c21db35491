"""Prediction from Python: arrays in, arrays out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import BcssError, CheckpointError, ConfigError
from train.predict import ImagePredictor, load_predictor
from train.predict.automatic import AutomaticOptions

ALL = "geojson,masks,coco,csv,overlay"
EVERYTHING = ["--automatic", "--grid", "4", "--iou-threshold", "0", "--stability-threshold", "0"]


def test_calls_from_python_take_images_of_any_shape(predictor: ImagePredictor) -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 300, 3), np.uint8)
    found = predictor.predict(image, boxes=[[10, 10, 40, 40], [200, 5, 290, 80]], points=[[[20, 20]], [[250, 30]]])
    assert found.masks.shape == (2, 90, 300)
    assert found.ious.shape == found.stability.shape == (2,)
    clicks = predictor.predict(image, points=[[[20, 20], [30, 30]]], labels=[[1, 0]])
    assert clicks.masks.shape == (1, 90, 300)
    as_array = predictor.predict(image, points=np.array([[[20, 20]], [[250, 30]]]))
    assert as_array.masks.shape == (2, 90, 300)
    everything = predictor.automatic(image, AutomaticOptions(3, 0.0, 0.0))
    assert everything.masks.shape[1:] == (90, 300)
    assert predictor.predict(image, boxes=[]).masks.shape == (0, 90, 300)
    np.testing.assert_array_equal(  # a box of one object, without outer brackets; only a part lies in the image
        predictor.predict(image, boxes=[-9, 80, 40, 99]).masks, predictor.predict(image, boxes=[[-9, 80, 40, 99]]).masks
    )


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((9, 9, 3)),
        np.zeros((9, 9, 3), np.uint16),
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        Image.new("RGB", (9, 9)),
        [[[1, 2, 3]]],
    ],
    ids=["float", "uint16", "gray", "alpha", "empty", "pillow", "list"],
)
def test_only_rgb_of_eight_bits_is_an_image(predictor: ImagePredictor, wrong: Any) -> None:
    for ask in (lambda: predictor.predict(wrong, boxes=[[1, 1, 5, 5]]), lambda: predictor.automatic(wrong)):
        with pytest.raises(BcssError, match=r"(predict|automatic): got an? .*; give the image as uint8 \(H, W, 3\)"):
            ask()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "got neither boxes nor points"),
        ({"boxes": [[1, 2, 3, 4]], "points": []}, "got 1 boxes, but points for 0"),
        ({"points": [[[1, 2]]], "labels": [[0]]}, "got neither box nor click on object 0"),
        (
            {"boxes": [[5000, 10, 5050, 50]]},
            "of object 0 outside the image, at 5000, 10; give x below 300",
        ),
        ({"points": [[[5, 5]], [[300, 5]]]}, "of object 1 outside"),
        ({"boxes": [[50, 10, 5, 50]]}, "got box 0 with its ends first"),
        ({"boxes": [[float("nan"), 1, 2, 3]]}, "got boxes that are not rows of 4 finite"),
        ({"boxes": [[1, 2, 3]]}, "got boxes that are not rows of 4 finite"),
        ({"points": [[[5, 5], [6]]]}, "got points of object 0 that are not rows of 2"),
        ({"points": [[[5, 5], [6, 6]]], "labels": [[1]]}, r"got 2 points of object 0 and the labels \[1\]"),
        ({"points": [[[5, 5]]], "labels": [[2]]}, r"the labels \[2\]"),
        ({"points": [[[5, 5]], [[6, 6]]], "labels": [[1]]}, "got labels for 1 objects, but points for 2"),
    ],
)
def test_wrong_prompts_from_python_are_named(predictor: ImagePredictor, wrong: Any, message: str) -> None:
    with pytest.raises(BcssError, match=f"predict: .*{message}"):
        predictor.predict(np.zeros((90, 300, 3), np.uint8), **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"size": "foo"}, "model 'foo': is unknown"), *[({"image_size": n}, f"size {n}: is no") for n in (0, -5, 100)]],
)
def test_network_that_does_not_exist_is_refused(checkpoint: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_predictor(checkpoint, "cpu", **wrong)


def test_grid_without_clicks_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 0 clicks along a side"):
        AutomaticOptions(0)


def test_image_may_be_flipped_or_read_as_bgr(predictor: ImagePredictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    flipped = image[::-1, :, ::-1]
    (view,), (copied,) = predictor.views(flipped), predictor.views(flipped.copy())
    assert torch.equal(view.features.embedding, copied.features.embedding)


def test_folder_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="run: is a folder; give the file of a checkpoint, as RUN/checkpoints"):
        load_predictor(tmp_path / "run", "cpu")
    (tmp_path / "run" / "checkpoints" / "best.pt").symlink_to(checkpoint)
    with pytest.raises(CheckpointError, match=r"run: is a folder; give .*run/checkpoints/best.pt"):
        load_predictor(tmp_path / "run", "cpu")
