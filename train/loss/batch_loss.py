"""The loss of a whole batch from the model's predictions of its groups, summed over decoder passes.

Axes: N objects of a group, O objects of the batch, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.data.collate import Batch
from train.loss.mask_loss import LossTerms, mask_loss
from train.loss.pixel_terms import EAGER, Kernels
from train.loss.prediction import GroupPrediction
from train.settings import LossConfig


def batch_loss(
    predictions: list[GroupPrediction],
    batch: Batch,
    config: LossConfig,
    num_objects: float,
    kernels: Kernels = EAGER,
) -> LossTerms:
    """Sum the loss over groups and passes.

    Args:
        predictions: One a group of the batch; with none all terms are zero.
        batch: Targets and don't-care pixels.
        config: Weights and choices.
        num_objects: What every term is divided by; see `mask_loss`.
        kernels: How pixels are summed.
    """
    valid = ~batch.ignore[0]
    image_index = batch.object_to_image[0, :, 1]
    weights = _object_weights(batch, config)
    zero = torch.zeros((), device=batch.images.device)
    total = LossTerms(zero, zero, zero, zero, zero)
    for prediction in predictions:
        objects = prediction.objects
        targets, counts = batch.masks[0, objects], valid[image_index[objects]]
        own_weights = None if weights is None else weights[objects]
        for masks in prediction.passes:
            total = total + mask_loss(masks, targets, counts, num_objects, config, own_weights, kernels)
    return total


def _object_weights(batch: Batch, config: LossConfig) -> Tensor | None:
    """The class weight of each object, float32 (O,)."""
    if not config.class_weights:
        return None
    weights = torch.ones(batch.num_objects, device=batch.class_ids.device)
    for code, weight in config.class_weights.items():
        weights = weights.masked_fill(batch.class_ids[0] == code, weight)
    return weights
