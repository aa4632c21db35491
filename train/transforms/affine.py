"""Apply an affine map to a whole sample: rotation, scale and shear around the center.

Axes: O objects, K points. Coordinates are x, y of pixel centers, and the map acts on these coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from train.transforms.geometry import keep_points_inside, repair_prompts
from train.transforms.sample import Sample


@dataclass(frozen=True)
class Affine:
    """The affine map x' = a x + b y + c, y' = d x + e y + f.

    Attributes:
        matrix: The coefficients [[a, b, c], [d, e, f]], float64 (2, 3); c and f are in pixels.
    """

    matrix: Tensor

    @classmethod
    def around_center(cls, width: int, height: int, *, angle: float, scale: float, shear: float) -> Affine:
        """Make a map around the center of the image: first a shear along x, then a rotation, then a scale.

        Args:
            width: Width of the image in pixels.
            height: Height of the image in pixels.
            angle: Clockwise rotation in radians.
            scale: Factor of the lengths.
            shear: Move along x in pixels for each pixel along y.
        """
        cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
        turn = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
        linear = turn @ torch.tensor([[1.0, shear], [0.0, 1.0]], dtype=torch.float64)
        center = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
        return cls(torch.cat([linear, (center - linear @ center)[:, None]], 1))

    def apply(self, coords: Tensor) -> Tensor:
        """Map coordinates (..., 2), given as x, y in pixels; the result has the same shape and dtype."""
        linear, offset = self.matrix[:, :2].to(coords.dtype), self.matrix[:, 2].to(coords.dtype)
        return coords @ linear.T + offset

    def inverse(self) -> Affine:
        """Return the inverse map."""
        linear = torch.linalg.inv(self.matrix[:, :2])
        return Affine(torch.cat([linear, -(linear @ self.matrix[:, 2:])], 1))


def apply_affine(sample: Sample, transform: Affine) -> Sample:
    """Apply an affine map to a sample; the size of the image stays the same.

    Pixels that come from beyond the edge of the image are black and ignored. Points that leave the image become
    padding; an object that loses its last click gets a new one in the middle of its segment. A point that the
    resampling puts on the wrong side of the outline moves to the nearest pixel on its own side. Boxes are computed
    again from the moved segments. An object that has no pixel left is dropped and counted in `Sample.dropped`.

    Args:
        sample: The sample.
        transform: The map from old to new coordinates.

    Returns:
        The moved sample: the image is sampled bilinearly, the masks take the nearest pixel.
    """
    width, height = sample.size_wh
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    sources = transform.inverse().apply(torch.stack([x, y], -1).to(torch.float64))
    # In the coordinates of grid_sample, -1 and 1 are the outer edges of the image.
    size = torch.tensor([width, height], dtype=torch.float64)
    grid = ((2 * sources + 1) / size - 1).float()[None]
    masks = torch.cat([sample.segments, ~sample.ignore[None]])
    sampled = F.grid_sample(masks[None].float(), grid, mode="nearest", align_corners=False)[0] > 0.5
    image = F.grid_sample(sample.image[None].float(), grid, mode="bilinear", align_corners=False)[0]
    result = replace(
        sample,
        image=image.round().clamp(0, 255).to(torch.uint8),
        segments=sampled[:-1],
        ignore=~sampled[-1],
        point_coords=transform.apply(sample.point_coords),
    )
    return repair_prompts(keep_points_inside(result.without_lost()))
