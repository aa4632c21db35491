"""Draw prompts from the mask as SAM 2's own training does: first a click or a jittered box, then clicks on errors.

The functions take their random numbers in [0, 1) as arguments. The dataset derives those from the seed, the epoch and
the tile. The prompts of an object therefore depend neither on the other objects of the batch nor on the number of
processes.
Axes: N objects, H and W pixels. Coordinates are x, y of pixel centers.
Source: Ravi et al., SAM 2, 2024, appendix on interactive training; Kirillov et al., Segment Anything, 2023, appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from schemas.prompt_kinds import PointLabel
from train.transforms.geometry import mask_box
from train.transforms.sample import Sample

BOX_JITTER, BOX_JITTER_MAX_PX = 0.1, 20.0
"""Largest move of a side of a random box: as a share of the box's length along that axis, and in pixels."""

TRUTH_CLICK_SHARE = 0.1
"""Share of the correction clicks that are drawn from the target mask instead of from the wrong pixels."""

DRAWS_PER_CLICK = 2
"""Random numbers per correction click: one chooses the region, one chooses the pixel in it.

The number that decides whether a click comes with a mask follows after the numbers of all clicks."""


def with_random_prompts(sample: Sample, generator: torch.Generator) -> Sample:
    """Replace the prompts of a sample: either a jittered box for each object or a click on each object.

    One random number per image decides between boxes and clicks.

    Args:
        sample: The sample.
        generator: The source of all random numbers.

    Returns:
        The sample with point_coords float32 (N, 2, 2) or (N, 1, 2) and point_labels int32 (N, 2) or (N, 1).
    """
    boxes = bool(torch.rand((), generator=generator) < 0.5)
    draws = torch.rand(len(sample.segments), 4, generator=generator)
    if boxes:
        drawn = [
            _jittered(mask_box(mask), own, BOX_JITTER, (mask.shape[1], mask.shape[0]))
            for mask, own in zip(sample.segments, draws, strict=True)
        ]
        coords = torch.stack(drawn) if drawn else torch.zeros(0, 2, 2)
        labels = torch.tensor([[PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT]]).expand(len(coords), 2)
    else:
        coords = _nth_pixel(sample.segments, draws[:, 0])[:, None]
        labels = torch.full((len(coords), 1), int(PointLabel.POSITIVE))
    return sample.with_prompts(coords.to(torch.float32), labels.to(torch.int32).clone())


def with_jittered_boxes(sample: Sample, share: float, generator: torch.Generator) -> Sample:
    """Move the corners of the boxes among a sample's prompts at random; other points stay.

    Args:
        sample: The sample.
        share: Largest move of a side, as a share of the box's length along that axis. It is at most 20 px, too.
        generator: The source of all random numbers.
    """
    draws = torch.rand(len(sample.segments), 4, generator=generator)
    coords = sample.point_coords.clone()
    corners = (sample.point_labels == PointLabel.BOX_TOP_LEFT) | (sample.point_labels == PointLabel.BOX_BOTTOM_RIGHT)
    for row in corners.any(1).nonzero()[:, 0].tolist():
        box = coords[row, corners[row]].flatten()
        coords[row, corners[row]] = _jittered(box, draws[row], share, sample.size_wh)
    return sample.with_prompts(coords, sample.point_labels)


def correction_clicks(logits: Tensor, targets: Tensor, valid: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one click per object from the pixels where its predicted mask is wrong.

    If no pixel is wrong, the click is drawn from the background. If there is no background either, it is drawn from
    the object.

    Args:
        logits: The predicted masks so far, (N, 1, H, W).
        targets: The target masks, bool (N, H, W).
        valid: The pixels that count, bool (N, H, W); False for ignored pixels, where no click is drawn.
        draws: Random numbers in [0, 1), (N, 2).

    Returns:
        point_coords float32 (N, 1, 2) as x, y, and point_labels int32 (N, 1): 1 on the object, 0 outside it.
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
    """Choose one pixel of each region.

    The pixels of a region are counted row by row. A draw of 0 chooses the first pixel, a draw just below 1 the last.

    Args:
        region: The regions, bool (N, H, W).
        draws: Numbers in [0, 1), (N,).

    Returns:
        The pixels, int64 (N, 2) as x, y.
    """
    running = region.flatten(1).cumsum(1, dtype=torch.int32)
    counts = running[:, -1]
    rank = (draws * counts).to(torch.int32).clamp(max=(counts - 1).clamp(min=0))
    index = torch.searchsorted(running, (rank + 1)[:, None])[:, 0].clamp(max=running.shape[1] - 1)
    width = region.shape[-1]
    return torch.stack([index % width, index // width], -1)


def _jittered(box: Tensor, draws: Tensor, share: float, size_wh: tuple[int, int]) -> Tensor:
    """Move each side of a box at random, both ways, and keep it in the image.

    Args:
        box: x0, y0, x1, y1 in pixels, all inclusive; (4,).
        draws: Numbers in [0, 1), (4,).
        share: Largest move, as a share of the box's length along that axis. It is at most 20 px, too.
        size_wh: Width and height of the image.

    Returns:
        The top-left and the bottom-right corner, float32 (2, 2) as x, y.
    """
    box = box.to(torch.float32)
    sides = (box[2:] - box[:2] + 1).repeat(2)
    reach = (share * sides).clamp(max=BOX_JITTER_MAX_PX)
    bound = torch.tensor([size_wh[0] - 1, size_wh[1] - 1]).repeat(2)
    moved = (box + (2 * draws - 1) * reach).clamp(min=torch.zeros(4), max=bound).reshape(2, 2)
    return torch.stack([moved.amin(0), moved.amax(0)])
