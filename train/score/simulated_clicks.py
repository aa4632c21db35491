"""Simulate interactive correction: after the prompt, each click falls on the center of the largest error.

Axes: O objects, S pixels a side, C clicks. Coordinates are x, y.
Source: Sofiiuk et al., Reviving iterative training with mask guidance for interactive segmentation, 2021, for the
protocol; Kirillov et al., Segment Anything, 2023, appendix D, for its use with SAM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.points import PointLabel
from schemas.record import Record
from train.model.predictor import MaskPredictor, Prediction, View
from train.score.metrics import score_masks


def click_dice(
    predictor: MaskPredictor,
    views: Sequence[View],
    record: Record,
    prompt: tuple[Tensor, Tensor],
    first: Prediction,
    corrections: int,
    threshold: float = 0.0,
) -> Iterator[NDArray[np.float64]]:
    """Simulate clicks, and score the masks after each of them.

    For each click the model receives all points so far and the mask logits of its last prediction.

    Args:
        predictor: The model.
        views: Features of the tile, from `predictor.views`.
        record: The tile with its true segments; ignored pixels are neither errors nor clicked on.
        prompt: Padded point coordinates, float32 (O, K, 2), and labels, int32 (O, K), of the first prompt.
        first: The prediction from the first prompt.
        corrections: C, the number of clicks.
        threshold: The logit above which a pixel is in the mask.

    Yields:
        float64 (O,), Dice of each object after one more click.
    """
    size = record.image.shape[0]
    (coords, labels), prediction = prompt, first
    for _ in range(corrections):
        wrong = (prediction.masks(size, threshold) != record.segments) & ~record.ignore
        clicks = [error_center(region) for region in wrong]
        coords, labels, clicked = _with_clicks(coords, labels, clicks, record.segments)
        answer = predictor.predict(views, coords, labels, size, prediction.logits)
        # An object without an error gets no click and keeps its mask.
        prediction = prediction.replaced(clicked.to(answer.ious.device), answer)
        yield score_masks(prediction.masks(size, threshold), record.segments, record.ignore).dice


def error_center(wrong: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Return the pixel of the largest connected error that is farthest from the border of that error.

    Args:
        wrong: bool (H, W), True where the mask is wrong.

    Returns:
        x, y of the pixel, or None if nothing is wrong.
    """
    if not wrong.any():
        return None
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(wrong.view(np.uint8), connectivity=8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, _ = stats[largest].tolist()
    region = numbers[top : top + height, left : left + width] == largest
    # The border of zeros makes the tile's edge count as a border of the region.
    distance = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(x) + left, int(y) + top


def _with_clicks(
    coords: Tensor, labels: Tensor, clicks: list[tuple[int, int] | None], segments: NDArray[np.bool_]
) -> tuple[Tensor, Tensor, Tensor]:
    """Append one click to the points of each object.

    Args:
        coords: float32 (O, K, 2), padded coordinates.
        labels: int32 (O, K), padded labels.
        clicks: x, y of each object's click, None for an object without one.
        segments: bool (O, S, S), the truth, which says whether a click is positive.

    Returns:
        Coordinates (O, K + 1, 2), labels (O, K + 1), and bool (O,), True for objects that got a click.
    """
    counts = (labels != PointLabel.PADDING).sum(1)
    coords = torch.cat([coords, torch.zeros(len(coords), 1, 2)], 1)
    labels = torch.cat([labels, torch.full((len(labels), 1), int(PointLabel.PADDING), dtype=labels.dtype)], 1)
    clicked = torch.zeros(len(labels), dtype=torch.bool)
    for row, click in enumerate(clicks):
        if click is not None:
            x, y = click
            coords[row, counts[row]] = torch.tensor([x, y], dtype=coords.dtype)
            labels[row, counts[row]] = int(segments[row, y, x])
            clicked[row] = True
    return coords, labels, clicked
