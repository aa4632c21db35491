"""SAM 2's published training loss, with pixels that do not count left out of every term.

Axes: N objects, M candidate masks of an object, H and W pixels. All terms are computed in float32.
Source: Ravi et al., SAM 2: Segment Anything in Images and Videos, 2024, appendix on training, and the values that
its published code (`MultiStepMultiMasksAndIous`) gives; the tests named golden hold it to those.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from train.loss.pixel_terms import EAGER, Kernels, mask_terms, with_gradient
from train.loss.prediction import MaskPrediction
from train.settings import LossConfig


@dataclass(frozen=True)
class LossTerms:
    """Terms of the loss, each a scalar summed over objects and divided by their number.

    Attributes:
        mask: Focal term.
        dice: Dice term.
        iou: IoU head.
        presence: Object score.
        total: The weighted sum.
    """

    mask: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor
    total: Tensor

    def __add__(self, other: LossTerms) -> LossTerms:
        """Add the terms of another step or group of objects."""
        return LossTerms(
            self.mask + other.mask,
            self.dice + other.dice,
            self.iou + other.iou,
            self.presence + other.presence,
            self.total + other.total,
        )


def scored_objects(valid: Tensor) -> Tensor:
    """Which objects have a pixel that counts; bool (N,) from bool (N, H, W)."""
    return valid.flatten(1).any(1)


def mask_loss(
    prediction: MaskPrediction,
    targets: Tensor,
    valid: Tensor,
    num_objects: Tensor | float,
    config: LossConfig,
    object_weights: Tensor | None = None,
    kernels: Kernels = EAGER,
) -> LossTerms:
    """Loss of one decoder pass.

    Of several candidate masks only the one with the least weighted focal and dice loss is trained. An object without
    a target pixel trains its presence alone, and one without a pixel that counts trains nothing.

    Args:
        prediction: The pass.
        targets: bool (N, H, W).
        valid: bool (N, H, W), false for don't-care pixels.
        num_objects: What every term is divided by: countable objects over all processes, at least 1.
        config: Weights and choices.
        object_weights: (N,), by which each object's terms are multiplied; 1 unless given.
        kernels: How pixels are summed.
    """
    truth = targets & valid
    counts = scored_objects(valid).float()
    if object_weights is not None:
        counts = counts * object_weights
    present = truth.flatten(1).any(1).float()

    pixels = truth, valid, config.focal_alpha, config.focal_gamma, kernels
    terms = mask_terms(prediction.logits, *pixels)
    best = (config.mask_weight * terms.focal + config.dice_weight * terms.dice).argmin(1)
    chosen = prediction.logits[torch.arange(len(best), device=best.device), best]
    focal, dice = with_gradient(terms.of(best), chosen, *pixels)
    iou_error = (F.l1_loss if config.iou_uses_l1 else F.mse_loss)(prediction.ious.float(), terms.iou, reduction="none")
    iou_term = iou_error.mean(1) if config.supervise_all_iou else iou_error.gather(1, best[:, None])[:, 0]
    shown = present if config.predict_presence else torch.ones_like(present)
    shown = shown * counts
    if config.predict_presence:
        scores = prediction.presence_logits[:, 0].float()
        presence = _focal(scores, present, config.presence_alpha, config.presence_gamma) * counts
    else:
        presence = torch.zeros_like(present)

    mask_term = (focal * shown).sum() / num_objects
    dice_term = (dice * shown).sum() / num_objects
    iou_sum = (iou_term * shown).sum() / num_objects
    presence_term = presence.sum() / num_objects
    total = (
        config.mask_weight * mask_term
        + config.dice_weight * dice_term
        + config.iou_weight * iou_sum
        + config.presence_weight * presence_term
    )
    return LossTerms(mask_term, dice_term, iou_sum, presence_term, total)


def _focal(logits: Tensor, truth: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each object score; Lin et al., Focal Loss for Dense Object Detection, 2017, equation 5."""
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    if gamma:
        probability = logits.sigmoid()
        missed = probability + truth - 2 * probability * truth
        loss = loss * missed**gamma
    if alpha >= 0:
        loss = loss * (alpha * truth + (1 - alpha) * (1 - truth))
    return loss
