"""Compute the loss of a whole batch, summed over its groups of objects, its frames and all decoder passes.

Axes: T frames, N objects of a group, O objects of the batch, H and W pixels.
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
    """Compute the loss of a batch as the sum over its groups, their frames and their decoder passes.

    Args:
        predictions: The predictions for each group and frame of the batch; if there are none, all terms are zero.
        batch: The batch, with the target masks and the ignored pixels.
        config: Weights and options of the loss.
        num_objects: The number that every term is divided by; see `mask_loss`.
        kernels: The functions that sum over pixels.

    Returns:
        The summed terms, each a float32 scalar.
    """
    valid = ~batch.ignore
    image_index = batch.object_to_image[0, :, 1]
    weights = _object_weights(batch, config)
    zero = torch.zeros((), device=batch.images.device)
    total = LossTerms(zero, zero, zero, zero, zero)
    for prediction in predictions:
        frame, objects = prediction.frame, prediction.objects
        targets, valid_pixels = batch.masks[frame, objects], valid[frame, image_index[objects]]
        group_weights = None if weights is None else weights[objects]
        known = None if frame == 0 else ~_may_be_hidden(batch, frame, objects, valid_pixels)
        for decoder_pass in prediction.passes:
            total = total + mask_loss(
                decoder_pass, targets, valid_pixels, num_objects, config, group_weights, kernels, known
            )
    return total


def _may_be_hidden(batch: Batch, frame: int, objects: Tensor, valid: Tensor) -> Tensor:
    """Return which objects may lie under ignored pixels of a frame, so that nobody knows whether they are there.

    These are objects without a pixel that counts, whose last visible mask has a pixel that is ignored in this frame.

    Args:
        batch: The batch.
        frame: Number of the frame, from 1.
        objects: The objects, int64 (N,).
        valid: The pixels of the frame that count, bool (N, H, W).

    Returns:
        bool (N,).
    """
    last = batch.masks[0, objects]
    for earlier in range(1, frame):
        own = batch.masks[earlier, objects]
        last = torch.where(own.flatten(1).any(1)[:, None, None], own, last)
    is_shown = (batch.masks[frame, objects] & valid).flatten(1).any(1)
    return ~is_shown & (last & ~valid).flatten(1).any(1)


def _object_weights(batch: Batch, config: LossConfig) -> Tensor | None:
    """Return the class weight of each object, float32 (O,), or None if no class has a weight."""
    if not config.class_weights:
        return None
    weights = torch.ones(batch.num_objects, device=batch.class_ids.device)
    for code, weight in config.class_weights.items():
        weights = weights.masked_fill(batch.class_ids[0] == code, weight)
    return weights
