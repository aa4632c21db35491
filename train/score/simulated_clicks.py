"""The interactive protocol: after a prompt, click after click at the centre of the largest error.

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
    """Yield Dice after each simulated click, float64 (O,); the model is given all clicks and its last logits.

    Args:
        predictor: The model.
        views: Of the tile.
        record: The tile; ignored pixels are neither errors nor clicked on.
        prompt: Padded coordinates and labels of the first prompt.
        first: Its prediction.
        corrections: C.
        threshold: Of logits.
    """
    size = record.image.shape[0]
    (coords, labels), prediction = prompt, first
    for _ in range(corrections):
        wrong = (prediction.masks(size, threshold) != record.segments) & ~record.ignore
        clicks = [error_center(region) for region in wrong]
        coords, labels, clicked = _with_clicks(coords, labels, clicks, record.segments)
        answer = predictor.predict(views, coords, labels, size, prediction.logits)
        # Where nothing is wrong there is no click, and the mask stays.
        prediction = prediction.replaced(clicked.to(answer.ious.device), answer)
        yield score_masks(prediction.masks(size, threshold), record.segments, record.ignore).dice


def error_center(wrong: NDArray[np.bool_]) -> tuple[int, int] | None:
    """The pixel of the largest connected error that is farthest from its border, as x, y; None without an error."""
    if not wrong.any():
        return None
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(wrong.view(np.uint8), connectivity=8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height, _ = stats[largest].tolist()
    region = numbers[top : top + height, left : left + width] == largest
    # A border of zeros, so that the tile's edge bounds a region as its outline does.
    distance = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(x) + left, int(y) + top


def _with_clicks(
    coords: Tensor, labels: Tensor, clicks: list[tuple[int, int] | None], segments: NDArray[np.bool_]
) -> tuple[Tensor, Tensor, Tensor]:
    """Put one more point behind each object's real ones; say which objects got one."""
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
