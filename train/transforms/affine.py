"""An affine map of a whole sample: rotation, scale and shear around the centre.

Axes: O objects, K points. Coordinates are x, y of pixel centres, and the map is of those.
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
    """x' = a x + b y + c, y' = d x + e y + f.

    Attributes:
        matrix: float64 (2, 3).
    """

    matrix: Tensor

    @classmethod
    def around_center(cls, width: int, height: int, *, angle: float, scale: float, shear: float) -> Affine:
        """A shear along x, then a turn by an angle in radians with the clock, then a scale, around the centre."""
        cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
        turn = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
        linear = turn @ torch.tensor([[1.0, shear], [0.0, 1.0]], dtype=torch.float64)
        center = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
        return cls(torch.cat([linear, (center - linear @ center)[:, None]], 1))

    def apply(self, coords: Tensor) -> Tensor:
        """Map coordinates (..., 2)."""
        linear, offset = self.matrix[:, :2].to(coords.dtype), self.matrix[:, 2].to(coords.dtype)
        return coords @ linear.T + offset

    def inverse(self) -> Affine:
        """The map back."""
        linear = torch.linalg.inv(self.matrix[:, :2])
        return Affine(torch.cat([linear, -(linear @ self.matrix[:, 2:])], 1))


def affine(sample: Sample, moved: Affine) -> Sample:
    """Move a sample; what comes from beyond its edge is black and ignored.

    Points that leave the image become padding, or are derived anew where none is left; the others are snapped to
    their side of the outline; boxes are drawn anew; an object without a pixel left is dropped and counted.
    """
    width, height = sample.size_wh
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    sources = moved.inverse().apply(torch.stack([x, y], -1).to(torch.float64))
    # grid_sample takes -1 and 1 for the outer edges of the image.
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
        point_coords=moved.apply(sample.point_coords),
    )
    result = result.keep(result.segments.flatten(1).any(1))
    return repair_prompts(keep_points_inside(result))
