"""The loss in plain operations under autograd, which the fast loss must equal."""

import torch.nn.functional as F
from torch import Tensor

from train.loss.prediction import MaskPrediction
from train.settings import LossConfig


def plain_loss(
    prediction: MaskPrediction, targets: Tensor, valid: Tensor, num_objects: float, config: LossConfig, weights: Tensor
) -> Tensor:
    """Return the weighted sum of all terms. The arguments are those of `mask_loss`."""
    logits = F.interpolate(prediction.logits.float(), targets.shape[-2:], mode="bilinear", align_corners=False)
    inside = valid[:, None].float()
    truth = (targets & valid)[:, None].float().expand_as(logits)
    probability = logits.sigmoid()
    pixel = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    pixel = pixel * (1 - (probability * truth + (1 - probability) * (1 - truth))) ** config.focal_gamma
    if config.focal_alpha >= 0:
        pixel = pixel * (config.focal_alpha * truth + (1 - config.focal_alpha) * (1 - truth))
    focal = (pixel * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)
    overlap, area = (probability * truth * inside).sum((2, 3)), ((probability + truth) * inside).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (area + 1)
    shown, true = (logits > 0) & valid[:, None], truth > 0
    iou = (shown & true).sum((2, 3)) / (shown | true).sum((2, 3)).clamp(min=1)
    best = (config.mask_weight * focal + config.dice_weight * dice).detach().argmin(1, keepdim=True)
    error = (prediction.ious - iou).abs() if config.iou_uses_l1 else (prediction.ious - iou).square()
    iou_term = error.mean(1) if config.supervise_all_iou else error.gather(1, best)[:, 0]
    present = true.any(1).flatten(1).any(1).float()
    presence = F.binary_cross_entropy_with_logits(prediction.presence_logits[:, 0], present, reduction="none")
    counts = weights * valid.flatten(1).any(1)
    masks = config.mask_weight * focal.gather(1, best) + config.dice_weight * dice.gather(1, best)
    each = (masks[:, 0] + config.iou_weight * iou_term) * present + config.presence_weight * presence
    return (each * counts).sum() / num_objects
