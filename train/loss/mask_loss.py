"""Compute SAM 2's published training loss; ignored pixels are left out of every term.

Axes: N objects, M candidate masks per object, H and W pixels. All terms are computed in float32.
Source: Ravi et al., SAM 2: Segment Anything in Images and Videos, 2024, appendix on training. The golden tests compare
the loss with the values of SAM 2's published code (`MultiStepMultiMasksAndIous`).
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
    """The terms of the loss: each a float32 scalar, summed over objects and divided by the number of objects.

    Attributes:
        mask: The focal loss of the masks.
        dice: The Dice loss of the masks.
        iou: The error of the IoU head.
        presence: The loss of the object score, which says whether the object is in the image.
        total: The weighted sum of the four terms.
    """

    mask: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor
    total: Tensor

    def __add__(self, other: LossTerms) -> LossTerms:
        """Add the terms of another decoder pass or of another group of objects."""
        return LossTerms(
            self.mask + other.mask,
            self.dice + other.dice,
            self.iou + other.iou,
            self.presence + other.presence,
            self.total + other.total,
        )


def scored_objects(valid: Tensor) -> Tensor:
    """Return which objects have at least one pixel that counts; bool (N,) from bool (N, H, W)."""
    return valid.flatten(1).any(1)


def mask_loss(
    prediction: MaskPrediction,
    targets: Tensor,
    valid: Tensor,
    num_objects: Tensor | float,
    config: LossConfig,
    object_weights: Tensor | None = None,
    kernels: Kernels = EAGER,
    known: Tensor | None = None,
) -> LossTerms:
    """Compute the loss of one decoder pass.

    If an object has several candidate masks, the loss trains only the candidate with the smallest weighted sum of
    focal and Dice loss. An object without a target pixel trains only the object score, if it is `known` to be
    absent. An object without a pixel that counts trains nothing.

    Args:
        prediction: The predictions of the decoder pass.
        targets: The target masks, bool (N, H, W).
        valid: The pixels that count, bool (N, H, W); False for ignored pixels.
        num_objects: The number that every term is divided by: the objects with a pixel that counts, over all
            processes, and at least 1.
        config: Weights and options of the loss.
        object_weights: Factor on all terms of each object, float32 (N,); 1 unless given.
        kernels: The functions that sum over pixels.
        known: Whether it is known that an object is in the image or not, bool (N,); the object score of the others is
            not trained. None means all.

    Returns:
        The terms, each a float32 scalar.
    """
    truth = targets & valid
    weights = scored_objects(valid).float()
    if object_weights is not None:
        weights = weights * object_weights
    present = truth.flatten(1).any(1).float()

    pixels = truth, valid, config.focal_alpha, config.focal_gamma, kernels
    terms = mask_terms(prediction.logits, *pixels)
    best = (config.mask_weight * terms.focal + config.dice_weight * terms.dice).argmin(1)
    chosen = prediction.logits[torch.arange(len(best), device=best.device), best]
    focal, dice = with_gradient(terms.of(best), chosen, *pixels)
    iou_error = (F.l1_loss if config.iou_uses_l1 else F.mse_loss)(prediction.ious.float(), terms.iou, reduction="none")
    iou_term = iou_error.mean(1) if config.supervise_all_iou else iou_error.gather(1, best[:, None])[:, 0]
    # Without an object score, an object without a target pixel must train its mask to be empty.
    mask_weights = present if config.predict_presence else torch.ones_like(present)
    mask_weights = mask_weights * weights
    if config.predict_presence:
        scores = prediction.presence_logits[:, 0].float()
        presence = _focal(scores, present, config.presence_alpha, config.presence_gamma) * weights
        presence = presence if known is None else presence * known
    else:
        presence = torch.zeros_like(present)

    mask_term = (focal * mask_weights).sum() / num_objects
    dice_term = (dice * mask_weights).sum() / num_objects
    iou_sum = (iou_term * mask_weights).sum() / num_objects
    presence_term = presence.sum() / num_objects
    total = (
        config.mask_weight * mask_term
        + config.dice_weight * dice_term
        + config.iou_weight * iou_sum
        + config.presence_weight * presence_term
    )
    return LossTerms(mask_term, dice_term, iou_sum, presence_term, total)


def _focal(logits: Tensor, truth: Tensor, alpha: float, gamma: float) -> Tensor:
    """Compute the focal loss of each object score, float32 (N,).

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017, equation 5.
    """
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    if gamma:
        probability = logits.sigmoid()
        missed = probability + truth - 2 * probability * truth
        loss = loss * missed**gamma
    if alpha >= 0:
        loss = loss * (alpha * truth + (1 - alpha) * (1 - truth))
    return loss
