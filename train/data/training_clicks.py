"""Prompts drawn from the mask, as in SAM 2's own training: a first click or jittered box, then clicks on the error.

Every draw is given from outside as numbers in [0, 1), which the data set keys by (seed, epoch, tile): the prompts of
an object then depend neither on its neighbours in the batch nor on the number of processes.
Axes: N objects, H and W pixels. Coordinates are x, y of pixel centres.
Source: Ravi et al., SAM 2, 2024, appendix on interactive training; Kirillov et al., Segment Anything, 2023, appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from schemas.points import PointLabel
from train.transforms.geometry import mask_box
from train.transforms.sample import Sample

BOX_JITTER, BOX_JITTER_MAX_PX = 0.1, 20.0
TRUTH_CLICK_SHARE = 0.1
"""Share of correction clicks drawn from the truth instead of the error."""

DRAWS_PER_CLICK = 2


def with_random_prompts(sample: Sample, generator: torch.Generator) -> Sample:
    """Replace a sample's prompts by a box or a click on each object; which of the two is one draw an image."""
    boxes = bool(torch.rand((), generator=generator) < 0.5)
    draws = torch.rand(len(sample.segments), 4, generator=generator)
    if boxes:
        drawn = [_jittered_box(mask, own) for mask, own in zip(sample.segments, draws, strict=True)]
        coords = torch.stack(drawn) if drawn else torch.zeros(0, 2, 2)
        labels = torch.tensor([[PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]]).expand(len(coords), 2)
    else:
        coords = _nth_pixel(sample.segments, draws[:, 0])[:, None]
        labels = torch.full((len(coords), 1), int(PointLabel.POSITIVE))
    return sample.with_prompts(coords.to(torch.float32), labels.to(torch.int32).clone())


def correction_clicks(logits: Tensor, targets: Tensor, valid: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one click an object from where its mask is wrong.

    Where nothing is wrong the click confirms the background, or the object if that is all there is.

    Args:
        logits: (N, 1, H, W), the masks so far.
        targets: bool (N, H, W).
        valid: bool (N, H, W), false for don't-care pixels, which no click hits.
        draws: (N, 2), numbers in [0, 1).

    Returns:
        coords float32 (N, 1, 2) as x, y, and labels int32 (N, 1).
    """
    wrong = ((logits[:, 0] > 0) != targets) & valid
    truth, background = targets & valid, ~targets & valid
    region = torch.where((draws[:, 0] < TRUTH_CLICK_SHARE)[:, None, None], truth, wrong)
    for fallback in (background, truth):
        region = torch.where(region.flatten(1).any(1)[:, None, None], region, fallback)
    coords = _nth_pixel(region, draws[:, 1])
    hit = targets[torch.arange(len(targets), device=targets.device), coords[:, 1], coords[:, 0]]
    return coords[:, None].to(torch.float32), hit[:, None].to(torch.int32)


def _nth_pixel(region: Tensor, draws: Tensor) -> Tensor:
    """The pixel of each region (N, H, W) at a share of its pixels in reading order; int64 (N, 2) as x, y."""
    running = region.flatten(1).cumsum(1, dtype=torch.int32)
    counts = running[:, -1]
    rank = (draws * counts).to(torch.int32).clamp(max=(counts - 1).clamp(min=0))
    place = torch.searchsorted(running, (rank + 1)[:, None])[:, 0].clamp(max=running.shape[1] - 1)
    width = region.shape[-1]
    return torch.stack([place % width, place // width], -1)


def _jittered_box(mask: Tensor, draws: Tensor) -> Tensor:
    """Corners (2, 2) of a box whose sides are each moved by up to a tenth of the box, at most 20 px."""
    box = mask_box(mask).to(torch.float32)
    sides = (box[2:] - box[:2] + 1).repeat(2)
    reach = (BOX_JITTER * sides).clamp(max=BOX_JITTER_MAX_PX)
    height, width = mask.shape
    bound = torch.tensor([width - 1, height - 1, width - 1, height - 1])
    moved = (box + (2 * draws - 1) * reach).clamp(min=torch.zeros(4), max=bound).reshape(2, 2)
    return torch.stack([moved.amin(0), moved.amax(0)])
