"""Writers take answers without truth, such as those for an image that nobody has annotated."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from schemas.classes import ClassInfo
from schemas.points import Prompt
from schemas.prompt_kinds import PointLabel
from schemas.store.store import Store
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.output.class_images import ClassImages, Roi
from train.output.writers import WrittenModels, answer_writers, evaluation_writers
from train.score.answers import answer_question
from train.score.tile_answer import Question


def _box(left: int, top: int, right: int, bottom: int) -> Prompt:
    labels = np.array([PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT], np.int32)
    return {"point_coords": np.array([[left, top], [right, bottom]], np.float32), "point_labels": labels}


def test_an_image_without_truth_is_predicted_and_written(nano: PromptableSam, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    question = Question(
        kind="box",
        prompts=[_box(10, 20, 50, 60), _box(40, 40, 90, 90)],
        index=0,
        frame_id="slide",
        origin_xy=(0, 0),
        scale_xy=(1.0, 1.0),
        object_ids=np.array([1, 2], np.int32),
        class_ids=np.array([1, 2], np.int32),
        ignore=np.zeros((96, 96), bool),
    )
    predictor = MaskPredictor(nano, torch.device("cpu"))
    answer = answer_question(predictor, "tuned", predictor.views(image), question)
    classes = [ClassInfo(code=code, name=name, color=(code, 0, 0)) for code, name in ((1, "tumor"), (2, "stroma"))]
    images = ClassImages(classes, {"slide": Roi(96, 96)})
    for writer in answer_writers(images, tmp_path, save_masks=True, stitch=True):
        writer(answer)
        writer.close()
    results = json.loads((tmp_path / "masks" / "tuned" / "box" / "results.json").read_text())
    assert [(entry["id"], entry["category_id"]) for entry in results] == [(1, 1), (2, 2)]
    assert [coco_mask.area(entry["segmentation"]) for entry in results] == answer.masks.sum((1, 2)).tolist()
    assert not (tmp_path / "masks" / "truth.json").exists()
    with Image.open(tmp_path / "stitched" / "tuned" / "box" / "slide.png") as stitched:
        codes = np.asarray(stitched)
    assert codes.shape == (96, 96)
    # Half precision may change a pixel whose logit is within a thousandth of the threshold.
    assert np.mean((codes > 0) == answer.masks.any(0)) > 0.99


def test_only_what_is_wanted_is_written(store: Store, tmp_path: Path) -> None:
    assert evaluation_writers(store, tmp_path, WrittenModels(), save_masks=False) == ()
    assert len(evaluation_writers(store, tmp_path, WrittenModels(), save_masks=True)) == 2


def test_baselines_are_written_if_they_are_asked_for() -> None:
    models = WrittenModels(("box",))
    assert [name in models for name in ("run/best", "baseline:box", "baseline:disc", "baseline:zero_shot")] == [
        True,
        True,
        False,
        False,
    ]
