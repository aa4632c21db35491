import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from train.loss.mask_loss import LossTerms, mask_loss
from train.loss.prediction import MaskPrediction
from train.settings import LossConfig

CASES = [
    "one_step_three_masks",
    "one_step_one_mask",
    "three_steps",
    "best_mask_iou_mse",
    "no_object_scores",
    "stable_weights",
    "obj_score_focal",
]


@pytest.mark.parametrize("case", CASES)
def test_golden_values_and_gradients(golden: Path, case: str) -> None:
    described = json.loads((golden / "loss.json").read_text())
    assert sorted(described) == sorted(CASES)
    settings = described[case]
    arrays = np.load(golden / f"loss_{case}.npz")
    steps = [_leaves(arrays, step) for step in range(len(settings["multimasks_per_step"]))]
    targets = torch.from_numpy(arrays["targets"]).bool()
    terms = [
        mask_loss(step, targets, torch.ones_like(targets), settings["num_objects"], _config(settings)) for step in steps
    ]
    total = _sum(terms)
    expected = settings["expected"]
    for name, value in (
        ("loss_mask", total.mask),
        ("loss_dice", total.dice),
        ("loss_iou", total.iou),
        ("loss_class", total.presence),
        ("core_loss", total.total),
    ):
        assert value.item() == pytest.approx(expected[name], rel=1e-5, abs=1e-7), name
    total.total.backward()
    for number, step in enumerate(steps):
        for name, leaf in (("logits", step.logits), ("ious", step.ious), ("object_score_logits", step.presence_logits)):
            wanted = torch.from_numpy(arrays[f"grad_{name}_{number}"])
            found = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8, msg=f"gradient of {name} in step {number}")


def _leaves(arrays: Any, step: int) -> MaskPrediction:
    names = ("logits", "ious", "object_score_logits")
    return MaskPrediction(*(torch.from_numpy(arrays[f"{name}_{step}"]).requires_grad_() for name in names))


def _config(settings: dict[str, Any]) -> LossConfig:
    weights, options = settings["weights"], settings["config"]
    return LossConfig(
        mask_weight=weights["loss_mask"],
        dice_weight=weights["loss_dice"],
        iou_weight=weights["loss_iou"],
        presence_weight=weights["loss_class"],
        supervise_all_iou=options["supervise_all_iou"],
        iou_uses_l1=options["iou_use_l1_loss"],
        predict_presence=options["pred_obj_scores"],
        presence_gamma=options.get("focal_gamma_obj_score", 0.0),
        presence_alpha=options.get("focal_alpha_obj_score", -1.0),
    )


def _sum(terms: list[LossTerms]) -> LossTerms:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _random(seed: int, masks: int = 3) -> tuple[MaskPrediction, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = MaskPrediction(
        torch.randn(4, masks, 12, 10, generator=generator).requires_grad_(),
        torch.rand(4, masks, generator=generator).requires_grad_(),
        torch.randn(4, 1, generator=generator).requires_grad_(),
    )
    targets = torch.rand(4, 12, 10, generator=generator) > 0.6
    valid = torch.rand(4, 12, 10, generator=generator) > 0.3
    return prediction, targets, valid


@given(st.integers(0, 1000), st.sampled_from([1, 3]))
def test_what_lies_under_ignored_pixels_changes_neither_loss_nor_gradient(seed: int, masks: int) -> None:
    prediction, targets, valid = _random(seed, masks)
    other, _, _ = _random(seed, masks)
    with torch.no_grad():
        other.logits.masked_fill_(~valid[:, None], 7.0)
    ours = mask_loss(prediction, targets, valid, 4, LossConfig())
    theirs = mask_loss(other, targets ^ ~valid, valid, 4, LossConfig())
    ours.total.backward()
    theirs.total.backward()
    assert ours.total.item() == theirs.total.item()
    assert prediction.logits.grad is not None
    assert other.logits.grad is not None
    assert not prediction.logits.grad[~valid[:, None].expand_as(prediction.logits)].any()
    torch.testing.assert_close(prediction.logits.grad, other.logits.grad)


def test_focal_is_the_mean_over_the_pixels_that_count() -> None:
    prediction, targets, valid = _random(0, masks=1)
    valid[:] = False
    valid[:, :6] = True
    cropped = MaskPrediction(prediction.logits[:, :, :6], prediction.ious, prediction.presence_logits)
    whole = mask_loss(prediction, targets, valid, 4, LossConfig())
    part = mask_loss(cropped, targets[:, :6], valid[:, :6], 4, LossConfig())
    assert whole.total.item() == pytest.approx(part.total.item(), rel=1e-6)


def test_fully_ignored_object_trains_nothing() -> None:
    prediction, targets, valid = _random(1)
    valid[2] = False
    mask_loss(prediction, targets, valid, 3, LossConfig()).total.backward()
    for leaf in (prediction.logits, prediction.ious, prediction.presence_logits):
        assert leaf.grad is not None
        assert not leaf.grad[2].any()
        assert leaf.grad[1].any()


def test_empty_target_trains_presence_alone() -> None:
    prediction, targets, _ = _random(2)
    targets[0] = False
    mask_loss(prediction, targets, torch.ones_like(targets), 4, LossConfig()).total.backward()
    assert prediction.logits.grad is not None
    assert prediction.presence_logits.grad is not None
    assert not prediction.logits.grad[0].any()
    assert prediction.presence_logits.grad[0].any()
