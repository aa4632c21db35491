"""Transforms of a whole sample: image, segments, ignored pixels and prompts move together or not at all.

Axes: O objects, K points. Coordinates are x, y of pixel centres, so a mirror image of x is W-1-x. Padding points stay
at (0, 0). Flips and quarter turns move pixels without resampling; only `resize` has to repair prompts afterwards.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.points import PointLabel
from train.transforms.orientation import Orientation
from train.transforms.sample import Sample


def random_orientation(sample: Sample, generator: torch.Generator) -> Sample:
    """Draw one of the eight flips and quarter turns, each equally likely."""
    turns = int(torch.randint(4, (), generator=generator))
    mirrored = bool(torch.randint(2, (), generator=generator))
    return orient(sample, Orientation(turns, mirrored))


def orient(sample: Sample, orientation: Orientation) -> Sample:
    """Turn and mirror a sample whose orientation is that of the store, and note its new one."""
    if not orientation.index:
        return sample
    image = orientation.pixels(sample.image.permute(1, 2, 0).numpy())
    segments = np.empty((len(sample.segments), *image.shape[:2]), np.bool_)
    for place, segment in enumerate(sample.segments.numpy()):
        orientation.pixels(segment, out=segments[place])
    return replace(
        sample,
        image=torch.from_numpy(image).permute(2, 0, 1),
        segments=torch.from_numpy(segments),
        ignore=torch.from_numpy(orientation.pixels(sample.ignore.numpy())),
        point_coords=orientation.points(sample.point_coords, sample.point_labels, sample.size_wh),
        view=orientation.index,
    )


def resize(sample: Sample, width: int, height: int) -> Sample:
    """Resize image (antialiased bilinear) and masks (nearest pixel centre) and repair the prompts.

    A point that leaves its side of the outline is moved to the nearest pixel on its side, a negative point without
    one becomes padding, boxes are drawn anew, and an object without a pixel left is dropped and counted.
    """
    old_width, old_height = sample.size_wh
    if (old_width, old_height) == (width, height):
        return sample
    columns, rows = nearest_centers(old_width, width), nearest_centers(old_height, height)
    resized = replace(
        sample,
        image=_resized(sample.image, width, height),
        segments=sample.segments[:, rows][:, :, columns],
        ignore=sample.ignore[rows][:, columns],
        point_coords=_unless_padding(
            scale_points(sample.point_coords, (old_width, old_height), (width, height)), sample.point_labels
        ),
    )
    return repair_prompts(resized.keep(resized.segments.flatten(1).any(1)))


def _resized(image: Tensor, width: int, height: int) -> Tensor:
    # Interpolation takes no image without channels either.
    if not len(image):
        return image.new_empty(0, height, width)
    resized = F.interpolate(image[None].float(), (height, width), mode="bilinear", antialias=True)[0]
    return resized.round().clamp(0, 255).to(torch.uint8)


def crop(sample: Sample, left: int, top: int, width: int, height: int) -> Sample:
    """Cut a window out; points beyond it become padding or are derived anew, and boxes are drawn anew.

    Args:
        sample: The sample.
        left: First column.
        top: First row.
        width: Columns.
        height: Rows.
    """
    window = (..., slice(top, top + height), slice(left, left + width))
    cut = replace(
        sample,
        image=sample.image[window].contiguous(),
        segments=sample.segments[window].contiguous(),
        ignore=sample.ignore[window].contiguous(),
        point_coords=sample.point_coords - torch.tensor([left, top]),
    )
    return repair_prompts(keep_points_inside(cut.keep(cut.segments.flatten(1).any(1))))


def keep_points_inside(sample: Sample) -> Sample:
    """Turn points beyond the image into padding; an object without a click left gets one in the middle of its segment.

    Box corners stay, since `repair_prompts` draws boxes anew.
    """
    width, height = sample.size_wh
    coords, labels = sample.point_coords.clone(), sample.point_labels.clone()
    pixels = coords.round()
    bound = torch.tensor([width - 1, height - 1])
    outside = ((pixels < 0) | (pixels > bound)).any(-1) & (labels <= PointLabel.POSITIVE)
    had_click = (labels == PointLabel.POSITIVE).any(1)
    labels[outside] = int(PointLabel.PADDING)
    for row in (had_click & ~(labels == PointLabel.POSITIVE).any(1)).nonzero()[:, 0].tolist():
        place = int((sample.point_labels[row] == PointLabel.POSITIVE).nonzero()[0])
        ys, xs = sample.segments[row].nonzero(as_tuple=True)
        # The middle pixel in reading order lies on the segment whatever its shape.
        coords[row, place] = torch.stack([xs[len(xs) // 2], ys[len(ys) // 2]]).to(coords.dtype)
        labels[row, place] = int(PointLabel.POSITIVE)
    return replace(sample, point_coords=_unless_padding(coords, labels), point_labels=labels)


def nearest_centers(old: int, new: int) -> Tensor:
    """For each of `new` pixels the one of `old` pixels under its centre; int64 (new,)."""
    return (2 * torch.arange(new) + 1) * old // (2 * new)


def scale_points(coords: Tensor, old_wh: tuple[int, int], new_wh: tuple[int, int]) -> Tensor:
    """Move coordinates (..., 2) with an image that is resized; pixel centres are half a pixel from the edge."""
    factor = torch.tensor(new_wh, dtype=coords.dtype) / torch.tensor(old_wh, dtype=coords.dtype)
    return (coords + 0.5) * factor - 0.5


def repair_prompts(sample: Sample) -> Sample:
    """Make prompts true again after resampling; see `resize`."""
    coords, labels = sample.point_coords.clone(), sample.point_labels.clone()
    for row, segment in enumerate(sample.segments):
        background = ~segment & ~sample.ignore
        for label, allowed in ((PointLabel.POSITIVE, segment), (PointLabel.NEGATIVE, background)):
            chosen = labels[row] == label
            if chosen.any():
                coords[row, chosen], found = _snapped(coords[row, chosen], allowed)
                if not found:
                    labels[row, chosen] = int(PointLabel.PADDING)
        corners = (labels[row] == PointLabel.BOX_TOP_LEFT) | (labels[row] == PointLabel.BOX_BOTTOM_RIGHT)
        if corners.any():
            coords[row, corners] = mask_box(segment).reshape(2, 2).to(coords.dtype)
    return replace(sample, point_coords=_unless_padding(coords, labels), point_labels=labels)


def mask_box(mask: Tensor) -> Tensor:
    """Inclusive bounds of a boolean (H, W) with at least one pixel, as x0, y0, x1, y1; int64 (4,)."""
    columns, rows = mask.any(0).nonzero()[:, 0], mask.any(1).nonzero()[:, 0]
    return torch.stack([columns[0], rows[0], columns[-1], rows[-1]])


def _snapped(coords: Tensor, allowed: Tensor) -> tuple[Tensor, bool]:
    """Move points (n, 2) whose pixel is not allowed to the nearest that is; say whether there is any."""
    height, width = allowed.shape
    bound = torch.tensor([width - 1, height - 1])
    pixels = coords.round().long().clamp(min=torch.zeros_like(bound), max=bound)
    wrong = ~allowed[pixels[:, 1], pixels[:, 0]]
    if not wrong.any():
        return coords, True
    candidates = allowed.nonzero().flip(-1)
    if not len(candidates):
        return coords, False
    moved = coords.clone()
    for row in wrong.nonzero()[:, 0].tolist():
        distance = (candidates - coords[row]).square().sum(-1)
        moved[row] = candidates[distance.argmin()].to(coords.dtype)
    return moved, True


def _unless_padding(coords: Tensor, labels: Tensor) -> Tensor:
    return torch.where((labels == PointLabel.PADDING)[..., None], torch.zeros_like(coords), coords)
