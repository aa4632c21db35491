"""The loss of a whole batch from the model's predictions of its groups.

Axes: N objects of a group, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.collate import Batch
from train.losses import LossConfig, LossTerms, MaskPrediction, countable_objects, mask_loss
from train.model import GroupPrediction, upsample


def batch_loss(predictions: list[GroupPrediction], batch: Batch, config: LossConfig) -> LossTerms:
    """Sum the loss over the groups, divided by the objects of the batch that have a pixel that counts.

    Args:
        predictions: One a group of the batch.
        batch: Targets and don't-care pixels.
        config: Weights and choices.
    """
    valid = ~batch.ignore[0]
    image_index = batch.object_to_image[0, :, 1]
    num_objects = countable_objects(valid)[image_index].sum().clamp(min=1)
    height, width = batch.masks.shape[-2:]
    terms: LossTerms | None = None
    for prediction in predictions:
        objects, masks = prediction.objects, prediction.masks
        full = MaskPrediction(upsample(masks.logits, height, width), masks.ious, masks.presence_logits)
        targets, counts = batch.masks[0, objects], valid[image_index[objects]]
        group = mask_loss(full, targets, counts, num_objects, config)
        terms = group if terms is None else terms + group
    return terms if terms is not None else _zero_terms(batch.images.device)


def _zero_terms(device: torch.device) -> LossTerms:
    zero: Tensor = torch.zeros((), device=device)
    return LossTerms(zero, zero, zero, zero, zero)
