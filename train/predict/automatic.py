"""Find all objects of a window without prompts, as SAM 2's automatic mask generator does.

A grid of clicks prompts the model, and bad or repeated masks are dropped. The same settings give the same masks as
`sam2.automatic_mask_generator`. This module calls its functions for boxes and grids.
Axes: O clicks, M candidate masks of each click, S pixels along a side of the window, s pixels along a side of the
model's input. Coordinates are x, y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sam2.utils.amg import batched_mask_to_box, build_point_grid
from torch import Tensor
from torchvision.ops import batched_nms

from schemas.errors import ConfigError
from train.loss.pixel_terms import upsample
from train.model.predictor import MaskPredictor, View
from train.predict.window_prediction import stability_of
from train.results.found_object import FoundObject

CLICKS_PER_PASS = 64
CPU_CLICKS_PER_PASS = 8

MASKS_PER_PASS = 16
"""Number of candidate masks that are upsampled at once; those with a low IoU estimate are dropped before."""


@dataclass(frozen=True)
class AutomaticOptions:
    """Settings of the search for objects without prompts.

    Attributes:
        clicks_per_side: Number of clicks along each side of a window.
        iou_threshold: A candidate is kept only if its IoU estimate is above this.
        stability_threshold: Lowest stability of an object.
        nms_iou: Largest IoU between the boxes of two objects in one window.
        min_area_px: Smallest area of an object in pixels of level 0, after parts are joined.
        threshold: A pixel whose logit is above this is in the mask.
        batch_size: Number of clicks in one pass of the decoder; None chooses it by the device.
    """

    clicks_per_side: int = 32
    iou_threshold: float = 0.8
    stability_threshold: float = 0.95
    nms_iou: float = 0.7
    min_area_px: int = 1
    threshold: float = 0.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse a grid without clicks.

        Raises:
            ConfigError: There is no click.
        """
        if self.clicks_per_side < 1:
            what = f"has {self.clicks_per_side} clicks along a side"
            raise ConfigError("AutomaticOptions", what, "give a grid of at least one click")


@dataclass(frozen=True)
class CandidateCounts:
    """Numbers of candidate masks.

    Attributes:
        total: All candidates.
        unlikely: Those whose IoU estimate is not above the threshold.
        unstable: Those that pass that threshold, but whose stability is below its own.
    """

    total: int = 0
    unlikely: int = 0
    unstable: int = 0

    def __add__(self, other: CandidateCounts) -> CandidateCounts:
        """Return the sums."""
        return CandidateCounts(self.total + other.total, self.unlikely + other.unlikely, self.unstable + other.unstable)


def find_all(
    predictor: MaskPredictor,
    views: Sequence[View],
    side: int,
    origin_xy: tuple[int, int],
    options: AutomaticOptions,
) -> tuple[list[FoundObject], CandidateCounts]:
    """Find the objects of one window.

    Args:
        predictor: The model.
        views: The encoded window.
        side: S.
        origin_xy: x, y of the window's first pixel in the grid.
        options: Settings of the search.

    Returns:
        The objects, those with the best IoU estimates first, and how many candidates the thresholds left out.
    """
    points = torch.from_numpy(build_point_grid(options.clicks_per_side)).float() * side
    default = CPU_CLICKS_PER_PASS if predictor.device.type == "cpu" else CLICKS_PER_PASS
    passes = [_of_clicks(predictor, views, some, side, options) for some in points.split(options.batch_size or default)]
    counts = sum((each for _, each in passes), CandidateCounts())
    parts = [part for part, _ in passes if len(part[1])]
    if not parts:
        return [], counts
    masks, ious, stability = (torch.cat(values) for values in zip(*parts, strict=True))
    boxes = batched_mask_to_box(masks).float()
    kept = batched_nms(boxes, ious, torch.zeros_like(ious), options.nms_iou)
    found: list[FoundObject] = []
    for row in kept.tolist():
        cut = FoundObject.from_mask(masks[row].numpy(), origin_xy, float(ious[row]), float(stability[row]))
        if cut is not None:
            found.append(cut)
    return found, counts


@torch.inference_mode()
def _of_clicks(
    predictor: MaskPredictor, views: Sequence[View], points: Tensor, side: int, options: AutomaticOptions
) -> tuple[tuple[Tensor, Tensor, Tensor], CandidateCounts]:
    """Return masks, bool (n, S, S), IoU estimates and stability of the candidates that are good enough, on the CPU."""
    logits, ious = candidates(predictor, views, points, side)
    logits, ious = logits.flatten(0, 1), ious.flatten(0, 1)
    total = len(ious)
    good = ious > options.iou_threshold if options.iou_threshold > 0 else torch.ones_like(ious, dtype=torch.bool)
    logits, ious = logits[good], ious[good]
    masks: list[Tensor] = []
    stability: list[Tensor] = []
    for some in logits.split(MASKS_PER_PASS):
        full = upsample(some[:, None], side, side)[:, 0]
        stability.append(stability_of(full, options.threshold))
        masks.append((full > options.threshold).cpu())
    if not masks:
        none = torch.zeros(0, side, side, dtype=torch.bool), torch.zeros(0), torch.zeros(0)
        return none, CandidateCounts(total, total)
    stable = torch.cat(stability).cpu()
    kept = stable >= options.stability_threshold
    counts = CandidateCounts(total, total - len(ious), int((~kept).sum()))
    return (torch.cat(masks)[kept], ious.float().cpu()[kept], stable[kept]), counts


def candidates(predictor: MaskPredictor, views: Sequence[View], points: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Predict all candidate masks of single clicks, averaged over the views.

    Args:
        predictor: The model.
        views: The encoded window.
        points: float32 (O, 2), x and y in pixels of the window.
        side: S.

    Returns:
        Logits (O, M, s/4, s/4) and IoU estimates (O, M).
    """
    labels = torch.ones(len(points), 1, dtype=torch.int32)
    return predictor.candidates(views, points[:, None], labels, side)
