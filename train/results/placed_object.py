"""Give each found object a number and an outline in pixels of level 0, ready to be written. Coordinates are x, y."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.results.found_object import FoundObject
from train.results.outline import outlines
from train.slide.working_grid import WorkingGrid

Ring = NDArray[np.float64]


@dataclass(frozen=True)
class PlacedObject:
    """One object in its image.

    Attributes:
        number: Number of the object in the image, from 1.
        found: The object in pixels of the grid.
        parts: Outer ring and holes of each part, (n, 2) in pixels of level 0; the first point is not repeated.
        area_px: Area of the object in pixels of level 0.
        area_um2: Area of the object in square micrometers; None if the resolution is not known.
    """

    number: int
    found: FoundObject
    parts: tuple[tuple[Ring, tuple[Ring, ...]], ...]
    area_px: float
    area_um2: float | None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels of level 0."""
        points = np.concatenate([outer for outer, _ in self.parts])
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        return left, top, right, bottom


def placed(objects: Iterable[FoundObject], grid: WorkingGrid) -> Iterator[PlacedObject]:
    """Number objects, and convert them to pixels of level 0.

    Args:
        objects: The objects, in pixels of the grid.
        grid: The grid.
    """
    mpp_um = grid.source.mpp_um
    for number, found in enumerate(objects, start=1):
        origin = np.array(found.origin_xy, np.float64)
        parts = tuple(
            (grid.to_level0(part.outer + origin), tuple(grid.to_level0(hole + origin) for hole in part.holes))
            for part in outlines(found.mask)
        )
        area = found.area_px * grid.level0_px
        yield PlacedObject(number, found, parts, area, None if mpp_um is None else area * mpp_um**2)
