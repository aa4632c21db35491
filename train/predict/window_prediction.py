"""Predict the objects of one window: masks with IoU estimates and stability.

Axes: O objects, K points, S pixels along a side of the window, s pixels along a side of the model's input. Coordinates
are x, y.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.prompt_kinds import PointLabel
from train.loss.pixel_terms import upsample
from train.model.predictor import MaskPredictor, View

STABILITY_OFFSET = 1.0
"""Stability compares the masks at the threshold plus and minus this, as SAM 2's automatic mask generator does."""


def stability_of(logits: Tensor, threshold: float = 0.0) -> Tensor:
    """Compute the stability of masks: the IoU between the masks at a higher and a lower threshold, (O,).

    Args:
        logits: (O, H, W), mask logits.
        threshold: The threshold halfway between these two.
    """
    inner = (logits > threshold + STABILITY_OFFSET).flatten(1).sum(1)
    outer = (logits > threshold - STABILITY_OFFSET).flatten(1).sum(1)
    return inner / outer


def as_prompt(
    box: Sequence[float] | None, points: Sequence[tuple[tuple[float, float], bool]], side: int
) -> tuple[list[list[float]], list[int]]:
    """Return coordinates and labels of one prompt as pixel indices within the window.

    The box is clipped to the window, and clicks outside the window are left out.

    Args:
        box: Left, top, right and bottom, measured from the corner of the window's first pixel.
        points: Clicks, measured in the same way, each with True if it is on the object and False if it is not.
        side: S.
    """
    coords: list[list[float]] = []
    labels: list[int] = []
    last = side - 1.0
    if box is not None:
        left, top, right, bottom = (float(np.clip(value, 0, side)) for value in box)
        left, top = min(left, last), min(top, last)
        # Right and bottom are exclusive, so the last pixel is one less, but a box has at least one pixel.
        coords += [[left, top], [max(right - 1, left), max(bottom - 1, top)]]
        labels += [PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]
    for (x, y), is_on in points:
        if 0 <= x < side and 0 <= y < side:
            coords.append([float(np.floor(x)), float(np.floor(y))])
            labels.append(PointLabel.POSITIVE if is_on else PointLabel.NEGATIVE)
    return coords, labels


def padded(prompts: Sequence[tuple[list[list[float]], list[int]]]) -> tuple[Tensor, Tensor]:
    """Stack prompts of different lengths: float32 (O, K, 2) and int32 (O, K), padded with the label -1."""
    most = max(len(labels) for _, labels in prompts)
    coords = torch.zeros(len(prompts), most, 2)
    labels = torch.full((len(prompts), most), int(PointLabel.PADDING), dtype=torch.int32)
    for row, (own_coords, own_labels) in enumerate(prompts):
        coords[row, : len(own_coords)] = torch.tensor(own_coords).reshape(-1, 2)
        labels[row, : len(own_labels)] = torch.tensor(own_labels, dtype=torch.int32)
    return coords, labels


def predict_window(
    predictor: MaskPredictor,
    views: Sequence[View],
    prompts: Sequence[tuple[list[list[float]], list[int]]],
    side: int,
    threshold: float = 0.0,
    mask_logits: Tensor | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """Predict the objects of one window.

    Args:
        predictor: The model.
        views: The encoded window.
        prompts: Coordinates and labels of each object from `as_prompt`.
        side: S.
        threshold: A pixel whose logit is above this is in the mask.
        mask_logits: float32 (O, s/4, s/4), mask logits as additional prompts; None gives none.

    Returns:
        IoU estimates, (O,); masks, bool (O, S, S); and stability, (O,).
    """
    coords, labels = padded(prompts)
    found = predictor.predict(views, coords, labels, side, mask_logits)
    masks = np.zeros((len(prompts), side, side), np.bool_)
    stability = np.zeros(len(prompts), np.float32)
    for row in range(len(prompts)):
        # Upsample one mask at a time to save memory: a window may have hundreds of objects.
        logits = upsample(found.logits[row : row + 1, None], side, side)[:, 0].float()
        masks[row] = (logits[0] > threshold).cpu().numpy()
        stability[row] = float(torch.nan_to_num(stability_of(logits, threshold))[0])
    return found.ious.float().cpu().numpy(), masks, stability
