"""Simulate interactive correction: after the prompt, each click is put in the middle of an error.

Clicks are chosen as in SAM 2's published evaluation. For the missed region and for the falsely covered region, find the
pixel that is farthest from the border. The click is the one of these two pixels that is farther from its border. It is
positive in the missed region, and negative in the falsely covered region. Two rules are added here: ignored pixels
belong to neither region, and a pixel is clicked only once.

Axes: O objects, S pixels per side, C clicks. Coordinates are x, y.
Sources: Sofiiuk et al., Reviving Iterative Training with Mask Guidance for Interactive Segmentation, 2021; Ravi et al.,
SAM 2, 2024; the function in its code is `sample_one_point_from_error_center`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.prompt_kinds import PointLabel
from schemas.record import Record
from train.model.predictor import MaskPredictor, Prediction, View
from train.score.metrics import MaskScores, score_masks

FED_BACK_LIMIT = 32.0
"""Mask logits that are fed back are clamped to this magnitude, as in Meta's image predictor."""


@dataclass(frozen=True)
class Click:
    """One simulated click.

    Attributes:
        x: Column of the pixel.
        y: Row of the pixel.
        positive: Whether the pixel belongs to the object.
    """

    x: int
    y: int
    positive: bool


def click_scores(
    predictor: MaskPredictor,
    views: Sequence[View],
    record: Record,
    prompt: tuple[Tensor, Tensor],
    first: Prediction,
    corrections: int,
    threshold: float = 0.0,
) -> Iterator[MaskScores]:
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
        The scores of all objects after one more click.
    """
    size = record.image.shape[0]
    (coords, labels), prediction = prompt, first
    clicked: list[set[tuple[int, int]]] = [set() for _ in record.segments]
    masks = first.masks(size, threshold)
    for _ in range(corrections):
        clicks = [
            next_click(truth, mask, ~record.ignore, before)
            for truth, mask, before in zip(record.segments, masks, clicked, strict=True)
        ]
        for click, before in zip(clicks, clicked, strict=True):
            if click is not None:
                before.add((click.x, click.y))
        coords, labels, has_click = _with_clicks(coords, labels, clicks)
        fed_back = prediction.logits.clamp(-FED_BACK_LIMIT, FED_BACK_LIMIT)
        answer = predictor.predict(views, coords, labels, size, fed_back)
        # An object without an error gets no click and keeps its mask.
        prediction = prediction.replaced(has_click.to(answer.ious.device), answer)
        masks = prediction.masks(size, threshold)
        yield score_masks(masks, record.segments, record.ignore)


def next_click(
    truth: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    clicked: Collection[tuple[int, int]] = (),
) -> Click | None:
    """Return the click that a careful person would make next.

    Args:
        truth: bool (H, W), the object.
        mask: bool (H, W), the prediction.
        counted: bool (H, W), false for ignored pixels.
        clicked: x, y of the pixels that were clicked before; they are not clicked again.

    Returns:
        The click; None if no pixel is wrong except those that were clicked before.
    """
    missed_depth, missed = _deepest(truth & ~mask & counted, clicked)
    false_depth, false = _deepest(mask & ~truth & counted, clicked)
    if max(missed_depth, false_depth) <= 0:
        return None
    if missed_depth > false_depth:
        return Click(*missed, positive=True)
    return Click(*false, positive=False)


def _deepest(region: NDArray[np.bool_], clicked: Collection[tuple[int, int]]) -> tuple[float, tuple[int, int]]:
    """Return the largest distance to the region's border, 0 if it is empty, and x, y of the first such pixel."""
    left, top, width, height = cv2.boundingRect(region.view(np.uint8))
    if not width:
        return 0.0, (0, 0)
    inside = region[top : top + height, left : left + width]
    # The border of zeros makes the tile's edge count as a border of the region.
    padded = np.pad(inside, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    for x, y in clicked:
        if left <= x < left + width and top <= y < top + height:
            depth[y - top, x - left] = 0
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(depth[y, x]), (int(x) + left, int(y) + top)


def _with_clicks(coords: Tensor, labels: Tensor, clicks: list[Click | None]) -> tuple[Tensor, Tensor, Tensor]:
    """Append one click to the points of each object.

    Args:
        coords: float32 (O, K, 2), padded coordinates.
        labels: int32 (O, K), padded labels.
        clicks: The click of each object, None for an object without one.

    Returns:
        Coordinates (O, K + 1, 2), labels (O, K + 1), and bool (O,), True for objects that got a click.
    """
    counts = (labels != PointLabel.PADDING).sum(1)
    coords = torch.cat([coords, torch.zeros(len(coords), 1, 2)], 1)
    labels = torch.cat([labels, torch.full((len(labels), 1), int(PointLabel.PADDING), dtype=labels.dtype)], 1)
    has_click = torch.zeros(len(labels), dtype=torch.bool)
    for row, click in enumerate(clicks):
        if click is not None:
            coords[row, counts[row]] = torch.tensor([click.x, click.y], dtype=coords.dtype)
            labels[row, counts[row]] = int(PointLabel.POSITIVE if click.positive else PointLabel.NEGATIVE)
            has_click[row] = True
    return coords, labels, has_click
