"""Find all objects of a window without prompts: a grid of clicks, filtered as SAM 2's automatic masks are.

Source: `sam2.automatic_mask_generator`, whose functions for boxes and grids are called here; the same settings give the
same masks. Axes: O clicks, M candidates of each, S pixels a side of the window. Coordinates are x, y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sam2.utils.amg import batched_mask_to_box, build_point_grid
from torch import Tensor
from torchvision.ops import batched_nms

from train.loss.pixel_terms import upsample
from train.model.predictor import MaskPredictor, View
from train.predict.found_object import FoundObject
from train.predict.tile_ask import stability_of

CLICKS_PER_PASS = 64
CPU_CLICKS_PER_PASS = 8

MASKS_PER_PASS = 16
"""Candidates that are enlarged at once, after those with a low IoU estimate are gone."""


@dataclass(frozen=True)
class AutomaticOptions:
    """How objects are found.

    Attributes:
        clicks_per_side: Clicks along each side of a window.
        iou_threshold: Least IoU estimate.
        stability_threshold: Least stability.
        nms_iou: Largest IoU of the boxes of two objects of one window.
        min_area_px: Least number of pixels.
        threshold: A pixel whose logit is above this is in the mask.
        batch_size: Clicks in one pass of the decoder; what the device takes unless given.
    """

    clicks_per_side: int = 32
    iou_threshold: float = 0.8
    stability_threshold: float = 0.95
    nms_iou: float = 0.7
    min_area_px: int = 1
    threshold: float = 0.0
    batch_size: int | None = None


def find_all(
    predictor: MaskPredictor,
    views: Sequence[View],
    side: int,
    origin_xy: tuple[int, int],
    options: AutomaticOptions,
) -> list[FoundObject]:
    """Find the objects of one window.

    Args:
        predictor: The model.
        views: The encoded window.
        side: S.
        origin_xy: x, y of the window's first pixel in the grid.
        options: How they are found.

    Returns:
        The objects, those with the best IoU estimate first.
    """
    points = torch.from_numpy(build_point_grid(options.clicks_per_side)).float() * side
    default = CPU_CLICKS_PER_PASS if predictor.device.type == "cpu" else CLICKS_PER_PASS
    parts = [_of_clicks(predictor, views, some, side, options) for some in points.split(options.batch_size or default)]
    parts = [part for part in parts if len(part[1])]
    if not parts:
        return []
    masks, ious, stability = (torch.cat(values) for values in zip(*parts, strict=True))
    boxes = batched_mask_to_box(masks).float()
    kept = batched_nms(boxes, ious, torch.zeros_like(ious), options.nms_iou)
    found: list[FoundObject] = []
    for row in kept.tolist():
        cut = FoundObject.cut(masks[row].numpy(), origin_xy, float(ious[row]), float(stability[row]))
        if cut is not None and cut.area_px >= options.min_area_px:
            found.append(cut)
    return found


@torch.inference_mode()
def _of_clicks(
    predictor: MaskPredictor, views: Sequence[View], points: Tensor, side: int, options: AutomaticOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks bool (n, S, S), IoU estimates and stability of the candidates that are good enough, on the CPU."""
    logits, ious = candidates(predictor, views, points, side)
    logits, ious = logits.flatten(0, 1), ious.flatten(0, 1)
    good = ious > options.iou_threshold if options.iou_threshold > 0 else torch.ones_like(ious, dtype=torch.bool)
    logits, ious = logits[good], ious[good]
    masks: list[Tensor] = []
    stability: list[Tensor] = []
    for some in logits.split(MASKS_PER_PASS):
        full = upsample(some[:, None], side, side)[:, 0]
        stability.append(stability_of(full, options.threshold))
        masks.append((full > options.threshold).cpu())
    if not masks:
        return torch.zeros(0, side, side, dtype=torch.bool), torch.zeros(0), torch.zeros(0)
    stable = torch.cat(stability).cpu()
    kept = stable >= options.stability_threshold
    return torch.cat(masks)[kept], ious.float().cpu()[kept], stable[kept]


def candidates(predictor: MaskPredictor, views: Sequence[View], points: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Logits (O, M, s/4, s/4) and IoU estimates (O, M) of all candidates of single clicks, averaged over the views.

    Args:
        predictor: The model.
        views: The encoded window.
        points: float32 (O, 2), x and y in pixels of the window.
        side: S.
    """
    labels = torch.ones(len(points), 1, dtype=torch.int32)
    return predictor.candidates(views, points[:, None], labels, side)
