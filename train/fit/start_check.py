"""Check at the start of a run that the training code and Meta's image predictor give the same masks."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import torch

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

MOST_OBJECTS = 8
"""How many objects of the tile are compared: a tile may show a thousand nuclei, which would need many gigabytes."""

LEAST_DICE = 0.97
"""Lowest Dice that counts as equal. Masks may differ by a few pixels, since resizing and bfloat16 round differently."""


@torch.inference_mode()
def check_against_predictor(model: PromptableSam, store: Store, tile: int, device: torch.device) -> float:
    """Compare the masks of both for the first box prompts of one tile, and log a warning in capitals if they differ.

    Our masks come from the code that training uses: sample, resize, collate, forward. The predictor gets the same
    prompts in pixels of the tile, and resizes the tile itself. Its feature sizes are set to fit the model's input,
    because its default sizes fit only 1024 px.

    Args:
        model: The model, on the device.
        store: The store with tiles and prompts.
        tile: Index of the tile.
        device: Device of the model.

    Returns:
        Mean Dice over objects between our masks and the predictor's; 1 if the tile has no object left after resizing.
    """
    # Importing the predictor takes half a second, and only runs with --init need it.
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    view = store.tile(tile)
    image, side = view.image, model.image_size
    size = len(image)
    prompts = store.prompts(tile, "box", object_ids=list(view.classes)[:MOST_OBJECTS])
    batch = collate([resize(read_sample(view, prompts), side, side)])
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
    with warnings.catch_warnings():
        # Meta's code uses torch.jit.script, which newer versions of torch deprecate; users can do nothing about it.
        warnings.filterwarnings("ignore", message="`torch.jit.script")
        theirs = SAM2ImagePredictor(model.sam)
    theirs._bb_feat_sizes = [(side // step, side // step) for step in model.backbone.level_strides]  # pyright: ignore[reportPrivateUsage]
    coords = scale_points(batch.point_coords[0], (side, side), (size, size)).numpy()
    with autocast(device):
        theirs.set_image(image)
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
