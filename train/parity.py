"""A check at the start of a run: the training path masks what Meta's image predictor masks with the same weights."""

from __future__ import annotations

import logging

import numpy as np
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from schemas.store import Store
from train.metrics import score_masks
from train.model import PromptableSam
from train.predict import MaskPredictor
from train.sample import pad_prompts

logger = logging.getLogger(__name__)

LEAST_DICE = 0.97
"""Resizing differs in rounding and bfloat16 in more, so masks agree almost, not always to the pixel."""


def check_against_predictor(model: PromptableSam, store: Store, tile: int, device: torch.device) -> float:
    """Compare one tile's masks under box prompts, and warn loudly where they differ.

    The predictor gets feature sizes for the model's input, since its own are for 1024 px, and the size that the model
    has, since a tile's resolution may be another.

    Returns:
        Mean Dice between the two.
    """
    record = store[tile]
    prompts = list(store.prompts(tile, "box").values())
    coords, labels = pad_prompts(prompts)
    size = record.image.shape[0]
    ours = MaskPredictor(model, device)
    masks = ours.predict(ours.views(record.image), coords, labels, size).masks(size)
    theirs = SAM2ImagePredictor(model.sam)
    side = model.image_size
    theirs._bb_feat_sizes = [(side // step, side // step) for step in (4, 8, 16)]  # pyright: ignore[reportPrivateUsage]
    was_training = model.training
    model.eval()
    theirs.set_image(record.image)
    found = np.stack(
        [
            theirs.predict(p["point_coords"], p["point_labels"], multimask_output=False)[0][0].astype(bool)
            for p in prompts
        ]
    )
    model.train(was_training)
    dice = float(score_masks(masks, found, np.zeros((size, size), bool)).dice.mean())
    if dice < LEAST_DICE:
        logger.warning(
            "THE TRAINING PATH DISAGREES WITH SAM2ImagePredictor ON TILE %d (Dice %.3f between their masks): scores "
            "of this run cannot be compared with those of other code",
            tile,
            dice,
        )
    return dice
