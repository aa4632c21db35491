"""The forward pass, the loss and the gradients over frames equal those of Meta's published training.

Axes: T frames, B images, O objects.
"""

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from train.data.collate import Batch
from train.data.point_groups import group_by_points
from train.fit.forward import TrainingForward
from train.loss.batch_loss import batch_loss
from train.loss.mask_loss import LossTerms
from train.loss.prediction import GroupPrediction
from train.model.promptable import PromptableSam
from train.settings import LossConfig
from train.transforms.geometry import mask_box

CASES = ["box_t1", "box_t4", "mask_t4", "box_t9", "box_t4_absent"]
SCORE_BIAS = {"box_t4_absent": -0.9}
"""What the weights add to every object score; 5 unless given here, which says that every object is present."""


def _batch(arrays: Any, *, boxes: bool) -> Batch:
    images, masks = torch.from_numpy(arrays["images"]).permute(0, 1, 4, 2, 3), torch.from_numpy(arrays["masks"])
    image_of_object = torch.from_numpy(arrays["image_of_object"])
    frames, objects = masks.shape[:2]
    frame = torch.arange(frames)[:, None].expand(-1, objects)
    coords, labels = torch.zeros(frames, objects, 2, 2), torch.full((frames, objects, 2), -1, dtype=torch.int32)
    if boxes:
        coords[0] = torch.stack([mask_box(mask).reshape(2, 2).float() for mask in masks[0]])
        labels[0] = torch.tensor([2, 3])
    return Batch(
        images=images,
        ignore=torch.zeros(frames, *images.shape[1:2], *masks.shape[-2:], dtype=torch.bool),
        masks=masks,
        point_coords=coords,
        point_labels=labels,
        object_to_image=torch.stack([frame, image_of_object.expand(frames, -1)], -1),
        identifiers=torch.zeros(frames, objects, 3, dtype=torch.int64),
        class_ids=torch.ones(frames, objects, dtype=torch.int64),
        groups=group_by_points(labels[0]),
        objects_by_class={1: objects},
        dropped=0,
        skipped=0,
        num_scored_objects=objects,
        click_draws=torch.zeros(frames, objects, 0),
        color_draws=torch.zeros(frames, images.shape[1], 0),
    )


class _Answers:
    """What our code answers for one case: predictions, loss terms and the norm of the gradient of each module."""

    def __init__(self, folder: Path, case: str, *, memory_factor: float = 1.0) -> None:
        arrays = np.load(folder / f"video_{case}.npz")
        model = PromptableSam("tiny", 128, memory=len(arrays["images"]) > 1, mask_prompts=case.startswith("mask"))
        model.sam.load_state_dict(_weights(folder, SCORE_BIAS.get(case, 5.0)))
        with torch.no_grad():
            model.sam.memory_encoder.out_proj.weight *= memory_factor
        batch = _batch(arrays, boxes=case.startswith("box"))
        self.predictions: list[GroupPrediction] = TrainingForward(model.train())(batch)
        self.terms: LossTerms = batch_loss(self.predictions, batch, LossConfig(), batch.num_objects)
        self.terms.total.backward()
        self.gradients: dict[str, Tensor] = {
            name: parameter.grad for name, parameter in model.sam.named_parameters() if parameter.grad is not None
        }

    def loss(self) -> dict[str, float]:
        names = {"mask": "loss_mask", "dice": "loss_dice", "iou": "loss_iou", "presence": "loss_class"}
        return {name: getattr(self.terms, ours).item() for ours, name in {**names, "total": "core_loss"}.items()}

    def norm(self, module: str) -> float:
        found = [grad for name, grad in self.gradients.items() if f"{name}.".startswith(f"{module}.")]
        return torch.stack([grad.norm() for grad in found]).norm().item()

    def frame(self, number: int) -> dict[str, Tensor]:
        (found,) = [prediction for prediction in self.predictions if prediction.frame == number]
        (last,) = found.passes
        logits = last.logits.detach()
        if logits.shape[-1] == 128:  # A given mask has the resolution of the input.
            logits = F.interpolate(logits, (32, 32), mode="bilinear", antialias=True)
        return {"logits": logits, "ious": last.ious.detach(), "object_score_logits": last.presence_logits.detach()}


@cache
def _answers(folder: Path, case: str) -> _Answers:
    return _Answers(folder, case)


@cache
def _weights(folder: Path, score_bias: float) -> dict[str, Tensor]:
    """Return the published weights, whose numbers take as long to draw as a forward pass."""
    spec = importlib.util.spec_from_file_location("fill_weights", folder / "fill_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = PromptableSam("tiny", 128)
    module.fill_weights(model.sam, score_bias)
    return model.sam.state_dict()


def _is_close(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-5, atol=2e-5)


def _approximately(values: dict[str, float]) -> Any:
    return pytest.approx(values, rel=1e-5, abs=1e-7)


def test_golden_video_cases_are_all_tested(golden: Path) -> None:
    assert sorted(json.loads((golden / "video.json").read_text())) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_golden_video_predictions_of_every_frame(golden: Path, case: str) -> None:
    arrays = np.load(golden / f"video_{case}.npz")
    for frame in range(len(arrays["images"])):
        for name, found in _answers(golden, case).frame(frame).items():
            wanted = torch.from_numpy(arrays[f"{name}_{frame}"])
            assert _is_close(found, wanted), f"{name} of frame {frame}: {(found - wanted).abs().max()} apart"
            assert not _is_close(1.01 * found, wanted), f"{name} of frame {frame}"


@pytest.mark.parametrize("case", CASES)
def test_golden_video_loss_and_gradient_norms(golden: Path, case: str) -> None:
    described = json.loads((golden / "video.json").read_text())[case]
    answers = _answers(golden, case)
    expected, norms = described["expected"], described["gradient_norms"]
    found = {**answers.loss(), **{module: answers.norm(module) for module in norms}}
    assert found == _approximately({**expected, **norms})
    for name, value in found.items():
        if value:
            assert 1.01 * value != _approximately({**expected, **norms}[name]), name
    trained_by_given_masks = {"mask_downsample.weight", "mask_downsample.bias"} if case.startswith("mask") else set()
    others = {name for name in answers.gradients if not f"{name}.".startswith(tuple(f"{module}." for module in norms))}
    assert others == trained_by_given_masks


def test_golden_video_memory_that_is_off_by_one_percent_is_found(golden: Path) -> None:
    arrays, answers = np.load(golden / "video_box_t4.npz"), _Answers(golden, "box_t4", memory_factor=1.01)
    equal = [
        _is_close(answers.frame(frame)["logits"], torch.from_numpy(arrays[f"logits_{frame}"])) for frame in range(4)
    ]
    assert equal == [True, False, False, False]
