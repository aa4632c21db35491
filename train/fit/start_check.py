"""A check at the start of a run: the training path masks what Meta's image predictor masks with the same weights."""

from __future__ import annotations

import logging

import numpy as np
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from schemas.store.store import Store
from train.data.collate import collate
from train.fit.forward import TrainingForward
from train.loss.pixel_terms import upsample
from train.model.promptable import PromptableSam
from train.runtime.device import autocast
from train.score.metrics import score_masks
from train.transforms.geometry import resize, scale_points
from train.transforms.sample import read_sample

logger = logging.getLogger(__name__)

LEAST_DICE = 0.97
"""Resizing differs in rounding and bfloat16 in more, so masks agree almost, not always to the pixel."""


@torch.inference_mode()
def check_against_predictor(model: PromptableSam, store: Store, tile: int, device: torch.device) -> float:
    """Compare one tile's masks under box prompts, and warn loudly where they differ.

    Ours come the way that training goes: sample, resize, collate, forward. The predictor gets the same prompts in the
    tile's pixels, feature sizes for the model's input, since its own are for 1024 px, and resizes the tile itself.

    Returns:
        Mean Dice between the two.
    """
    record = store[tile]
    size, side = record.image.shape[0], model.image_size
    batch = collate([resize(read_sample(store.tile(tile), store.prompts(tile, "box")), side, side)])
    if not batch.num_objects:
        logger.warning("tile %d has no object left at %d px: the training path could not be checked", tile, side)
        return 1.0
    was_training = model.training
    model.eval()
    with autocast(device):
        (group,) = TrainingForward(model)(batch.to(device))
    last = group.passes[-1]
    best = last.logits[torch.arange(len(last.ious), device=device), last.ious.argmax(1)]
    masks = (upsample(best[:, None], size, size)[:, 0] > 0).cpu().numpy()
    theirs = SAM2ImagePredictor(model.sam)
    theirs._bb_feat_sizes = [(side // step, side // step) for step in (4, 8, 16)]  # pyright: ignore[reportPrivateUsage]
    coords = scale_points(batch.point_coords[0], (side, side), (size, size)).numpy()
    with autocast(device):
        theirs.set_image(record.image)
        found = [
            theirs.predict(xy, labels, multimask_output=False)[0][0].astype(bool)
            for xy, labels in zip(coords, batch.point_labels[0].numpy(), strict=True)
        ]
    model.train(was_training)
    dice = float(score_masks(masks, np.stack(found), np.zeros((size, size), bool)).dice.mean())
    if dice < LEAST_DICE:
        logger.warning(
            "THE TRAINING PATH DISAGREES WITH SAM2ImagePredictor ON TILE %d (Dice %.3f between their masks): scores "
            "of this run cannot be compared with those of other code",
            tile,
            dice,
        )
    else:
        logger.info("the training path masks tile %d as SAM2ImagePredictor does (Dice %.3f)", tile, dice)
    return dice
