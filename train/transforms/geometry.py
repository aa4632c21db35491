"""Geometric transforms of a whole sample: the image, the segments, the ignored pixels and the prompts move together.

Axes: O objects, K points. Coordinates are x, y of pixel centers, so the mirror image of x is W-1-x. Padding points stay
at (0, 0). Flips and quarter turns move pixels without resampling, so they keep every prompt correct. The other
transforms repair the prompts afterwards; see `repair_prompts`. Most move one frame; `Sample.moved` moves all of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.prompt_kinds import PointLabel
from train.transforms.orientation import Orientation
from train.transforms.sample import Sample


def random_orientation(sample: Sample, generator: torch.Generator) -> Sample:
    """Draw one of the eight orientations, each equally likely, and apply it to all frames."""
    turns = int(torch.randint(4, (), generator=generator))
    mirrored = bool(torch.randint(2, (), generator=generator))
    return sample.moved(lambda frame: orient(frame, Orientation(turns, mirrored)))


def orient(sample: Sample, orientation: Orientation) -> Sample:
    """Turn and mirror a sample that is in the orientation of the store.

    Args:
        sample: The sample.
        orientation: The orientation to bring it to.

    Returns:
        The moved sample; its `view` is the index of the orientation.
    """
    if not orientation.index:
        return sample
    image = orientation.pixels(sample.image.permute(1, 2, 0).numpy())
    segments = np.empty((len(sample.segments), *image.shape[:2]), np.bool_)
    for index, segment in enumerate(sample.segments.numpy()):
        orientation.pixels(segment, out=segments[index])
    return replace(
        sample,
        image=torch.from_numpy(image).permute(2, 0, 1),
        segments=torch.from_numpy(segments),
        ignore=torch.from_numpy(orientation.pixels(sample.ignore.numpy())),
        point_coords=orientation.points(sample.point_coords, sample.point_labels, sample.size_wh),
        view=orientation.index,
    )


def resize(sample: Sample, width: int, height: int) -> Sample:
    """Resize the image (bilinear, antialiased) and the masks (nearest pixel center), and repair the prompts.

    An object that has no pixel left is dropped and counted in `Sample.dropped`. `repair_prompts` describes what
    happens to the prompts.

    Args:
        sample: The sample.
        width: New width in pixels.
        height: New height in pixels.

    Returns:
        The resized sample.
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
    return repair_prompts(resized.without_lost())


def _resized(image: Tensor, width: int, height: int) -> Tensor:
    # A sample with stored features has an image without channels, which F.interpolate refuses.
    if not len(image):
        return image.new_empty(0, height, width)
    resized = F.interpolate(image[None].float(), (height, width), mode="bilinear", antialias=True)[0]
    return resized.round().clamp(0, 255).to(torch.uint8)


def crop(sample: Sample, left: int, top: int, width: int, height: int) -> Sample:
    """Crop a sample to a window.

    Points outside the window become padding; an object that loses its last click gets a new one in the middle of its
    segment. Boxes are computed again. An object that has no pixel left is dropped and counted in `Sample.dropped`.

    Args:
        sample: The sample.
        left: First column of the window.
        top: First row of the window.
        width: Number of columns of the window.
        height: Number of rows of the window.

    Returns:
        The cropped sample.
    """
    window = (..., slice(top, top + height), slice(left, left + width))
    cut = replace(
        sample,
        image=sample.image[window].contiguous(),
        segments=sample.segments[window].contiguous(),
        ignore=sample.ignore[window].contiguous(),
        point_coords=sample.point_coords - torch.tensor([left, top]),
    )
    return repair_prompts(keep_points_inside(cut.without_lost()))


def keep_points_inside(sample: Sample) -> Sample:
    """Turn points outside the image into padding; an object that loses its last click gets a new one.

    The new click is in the middle of the object's segment. Box corners stay as they are, because `repair_prompts`
    computes boxes again.

    Args:
        sample: A sample in which every object has at least one pixel.

    Returns:
        The sample with the changed prompts.
    """
    width, height = sample.size_wh
    coords, labels = sample.point_coords.clone(), sample.point_labels.clone()
    pixels = coords.round()
    bound = torch.tensor([width - 1, height - 1])
    outside = ((pixels < 0) | (pixels > bound)).any(-1) & (labels <= PointLabel.POSITIVE)
    had_click = (labels == PointLabel.POSITIVE).any(1)
    labels[outside] = int(PointLabel.PADDING)
    for row in (had_click & ~(labels == PointLabel.POSITIVE).any(1)).nonzero()[:, 0].tolist():
        first_click = int((sample.point_labels[row] == PointLabel.POSITIVE).nonzero()[0])
        ys, xs = sample.segments[row].nonzero(as_tuple=True)
        # The pixels are counted row by row. The middle one lies on the segment, whatever the shape of the segment.
        coords[row, first_click] = torch.stack([xs[len(xs) // 2], ys[len(ys) // 2]]).to(coords.dtype)
        labels[row, first_click] = int(PointLabel.POSITIVE)
    return replace(sample, point_coords=_unless_padding(coords, labels), point_labels=labels)


def nearest_centers(old: int, new: int) -> Tensor:
    """Return, for each of `new` pixels along an axis, the index of the old pixel under its center; int64 (new,)."""
    return (2 * torch.arange(new) + 1) * old // (2 * new)


def scale_points(coords: Tensor, old_wh: tuple[int, int], new_wh: tuple[int, int]) -> Tensor:
    """Scale coordinates with an image that is resized; a pixel center is half a pixel from the pixel's edge.

    Args:
        coords: Coordinates of pixel centers, (..., 2) as x, y.
        old_wh: Width and height before, in pixels.
        new_wh: Width and height after, in pixels.

    Returns:
        The new coordinates, same shape and dtype.
    """
    factor = torch.tensor(new_wh, dtype=coords.dtype) / torch.tensor(old_wh, dtype=coords.dtype)
    return (coords + 0.5) * factor - 0.5


def repair_prompts(sample: Sample) -> Sample:
    """Correct the prompts after the pixels were resampled.

    A positive point that is off its segment moves to the nearest pixel of the segment. A negative point that is on the
    segment or on an ignored pixel moves to the nearest pixel of the background; if there is none, the negative points
    become padding. The corners of a box are computed again from the segment.

    Args:
        sample: A sample in which every object has at least one pixel.

    Returns:
        The sample with the corrected prompts.
    """
    coords, labels = sample.point_coords.clone(), sample.point_labels.clone()
    for row, segment in enumerate(sample.segments):
        background = ~segment & ~sample.ignore
        for label, allowed in ((PointLabel.POSITIVE, segment), (PointLabel.NEGATIVE, background)):
            chosen = labels[row] == label
            if chosen.any():
                coords[row, chosen], has_allowed = _snapped(coords[row, chosen], allowed)
                if not has_allowed:
                    labels[row, chosen] = int(PointLabel.PADDING)
        corners = (labels[row] == PointLabel.BOX_TOP_LEFT) | (labels[row] == PointLabel.BOX_BOTTOM_RIGHT)
        if corners.any():
            coords[row, corners] = mask_box(segment).reshape(2, 2).to(coords.dtype)
    return replace(sample, point_coords=_unless_padding(coords, labels), point_labels=labels)


def mask_box(mask: Tensor) -> Tensor:
    """Compute the bounding box of a mask.

    Args:
        mask: bool (H, W), with at least one pixel.

    Returns:
        x0, y0, x1, y1 in pixels, all inclusive; int64 (4,).
    """
    columns, rows = mask.any(0).nonzero()[:, 0], mask.any(1).nonzero()[:, 0]
    return torch.stack([columns[0], rows[0], columns[-1], rows[-1]])


def _snapped(coords: Tensor, allowed: Tensor) -> tuple[Tensor, bool]:
    """Move each point that is not on an allowed pixel to the nearest allowed pixel.

    Args:
        coords: The points, (n, 2) as x, y.
        allowed: The allowed pixels, bool (H, W).

    Returns:
        The moved points, and False if a point had to move but no pixel is allowed.
    """
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
    """Set the coordinates of padding points to (0, 0)."""
    return torch.where((labels == PointLabel.PADDING)[..., None], torch.zeros_like(coords), coords)
