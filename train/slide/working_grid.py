"""The pixel grid that a model works on: an image, or a region of it, at the resolution that the model was trained at.

Coordinates are x, y. The part of a window that lies outside the grid is black, as in padded tiles of a store.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError
from train.slide.image_source import ImageSource

PREVIEW_PX = 1600
BLOCK_PX = 4096
"""Side in pixels of the blocks of level 0 that are read for a preview, one at a time."""


@dataclass(frozen=True)
class WorkingGrid:
    """A region of an image at one resolution.

    Attributes:
        source: The image.
        region: Left, top, width and height in pixels of level 0.
        pixel_size_xy: Width and height of one pixel of the grid in pixels of level 0.
        size_xy: Width and height of the grid in its own pixels.
    """

    source: ImageSource
    region: tuple[int, int, int, int]
    pixel_size_xy: tuple[float, float]
    size_xy: tuple[int, int]

    @property
    def level0_px(self) -> float:
        """Area of one pixel of the grid in pixels of level 0."""
        return self.region[2] * self.region[3] / (self.size_xy[0] * self.size_xy[1])

    @classmethod
    def of(
        cls,
        source: ImageSource,
        mpp_um: float | None = None,
        region: tuple[int, int, int, int] | None = None,
        square_px: int | None = None,
    ) -> WorkingGrid:
        """Lay the grid over an image.

        Args:
            source: The image.
            mpp_um: Resolution of the grid in micrometers per pixel; None keeps the pixels of level 0.
            region: Left, top, width and height in pixels of level 0; None is the whole image.
            square_px: Side of a square that the region is resized to, for models that were trained on whole images in
                this form; None leaves the size to the resolution.

        Raises:
            ConfigError: The region is not inside the image, or `mpp_um` is given and the image states no resolution.
        """
        width, height = source.size_xy
        left, top, region_width, region_height = region or (0, 0, width, height)
        inside = left >= 0 and top >= 0 and left + region_width <= width and top + region_height <= height
        if not inside or region_width < 1 or region_height < 1:
            what = f"is not in {source.path}, which has {width} x {height} px"
            raise ConfigError("--region", what, "give X,Y,W,H in pixels of level 0")
        pixel_size_xy = (1.0, 1.0)
        if square_px is not None:
            pixel_size_xy = region_width / square_px, region_height / square_px
        elif mpp_um is not None:
            if source.mpp_um is None:
                what = f"does not state its resolution, but the model works at {mpp_um:g} um per pixel"
                raise ConfigError(source.path, what, "give --source-mpp")
            pixel_size_xy = mpp_um / source.mpp_um, mpp_um / source.mpp_um
        size_xy = max(round(region_width / pixel_size_xy[0]), 1), max(round(region_height / pixel_size_xy[1]), 1)
        return cls(source, (left, top, region_width, region_height), pixel_size_xy, size_xy)

    def read(self, left: int, top: int, side: int, out_px: int | None = None) -> NDArray[np.uint8]:
        """Read a square window.

        Args:
            left: x of the window's first pixel; it may lie outside the grid.
            top: y of the window's first pixel.
            side: Side of the window in pixels of the grid.
            out_px: Side of the result in pixels; None is the side of the window.

        Returns:
            uint8 (out_px, out_px, 3), RGB; black outside the grid.
        """
        out_px = out_px or side
        factor = out_px / side
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + side, self.size_xy[0]), min(top + side, self.size_xy[1])
        window = np.zeros((out_px, out_px, 3), np.uint8)
        if x0 >= x1 or y0 >= y1:
            return window
        # Where the part inside the grid lies in the result, and then where it lies in the image.
        to_x, to_y = round((x0 - left) * factor), round((y0 - top) * factor)
        out_xy = max(round((x1 - left) * factor) - to_x, 1), max(round((y1 - top) * factor) - to_y, 1)
        edges = [self._level0(value, axis) for axis, value in enumerate((x0, y0))]
        ends = [self._level0(value, axis) for axis, value in enumerate((x1, y1))]
        width, height = max(ends[0] - edges[0], 1), max(ends[1] - edges[1], 1)
        part = self.source.read(edges[0], edges[1], width, height, out_xy)
        window[to_y : to_y + out_xy[1], to_x : to_x + out_xy[0]] = part[: out_px - to_y, : out_px - to_x]
        return window

    @cached_property
    def preview(self) -> NDArray[np.uint8]:
        """The whole grid at low resolution, uint8 (H, W, 3), RGB, with at most `PREVIEW_PX` on the longer side.

        It is read in blocks to save memory, because a slide may have no level of lower resolution.
        """
        width, height = self.region[2:]
        factor = min(PREVIEW_PX / max(width, height), 1.0)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        block = max(int(BLOCK_PX * factor), 1)
        for y in range(0, size[1], block):
            for x in range(0, size[0], block):
                ends = min(x + block, size[0]), min(y + block, size[1])
                edges = [round(value / factor) for value in (x, y)]
                lasts = [min(round(end / factor), side) for end, side in zip(ends, (width, height), strict=True)]
                place = self.region[0] + edges[0], self.region[1] + edges[1]
                span = max(lasts[0] - edges[0], 1), max(lasts[1] - edges[1], 1)
                part = self.source.read(*place, *span, (ends[0] - x, ends[1] - y))
                picture[y : ends[1], x : ends[0]] = part
        return picture

    def _level0(self, value: int, axis: int) -> int:
        """Convert a pixel index of the grid along one axis to a pixel index of level 0."""
        size, length, start = self.size_xy[axis], self.region[2 + axis], self.region[axis]
        return start + (length if value >= size else min(round(value * self.pixel_size_xy[axis]), length - 1))

    def to_level0(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert points (n, 2) from grid pixels to level 0 pixels; both are measured from the first pixel's corner."""
        factors = np.array([self.region[2] / self.size_xy[0], self.region[3] / self.size_xy[1]])
        return points * factors + np.array(self.region[:2])

    def from_level0(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert points (n, 2) from level 0 pixels to grid pixels."""
        factors = np.array([self.region[2] / self.size_xy[0], self.region[3] / self.size_xy[1]])
        return (points - np.array(self.region[:2])) / factors
