"""The classes of synthetic tissue, how each is painted where color tells them apart, and the corners outside of all."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

OUTSIDE, TUMOR, STROMA, LYMPHOCYTES, NECROSIS, EXCLUDE, VESSEL = 0, 1, 2, 3, 4, 7, 18


@dataclass(frozen=True)
class Look:
    """How a class is painted.

    Attributes:
        ground: Color of the ground, RGB.
        nuclei: Number of nuclei in 100 x 100 px.
        radius_px: Radius of a nucleus in pixels.
        nucleus: Color of a nucleus, RGB.
    """

    ground: tuple[int, int, int]
    nuclei: float
    radius_px: int
    nucleus: tuple[int, int, int]


LOOKS = {
    OUTSIDE: Look((225, 195, 215), 0.6, 7, (140, 90, 160)),
    TUMOR: Look((196, 140, 190), 7.0, 9, (98, 58, 140)),
    STROMA: Look((232, 170, 200), 1.0, 6, (120, 70, 150)),
    LYMPHOCYTES: Look((205, 165, 205), 16.0, 5, (62, 38, 110)),
    NECROSIS: Look((226, 150, 165), 0.3, 5, (150, 80, 120)),
    EXCLUDE: Look((242, 240, 243), 0.0, 1, (0, 0, 0)),
    VESSEL: Look((205, 70, 90), 0.4, 6, (120, 40, 80)),
}


def cut_corners(labels: NDArray[np.uint8]) -> None:
    """Set a triangle at two corners to the code for outside; ROIs of BCSS are rotated against the axes of the slide."""
    height, width = labels.shape
    cut = height // 10
    for x, y, dx, dy in ((0, 0, 2, 1), (width - 1, height - 1, -2, -1)):
        corner = np.array([(x, y), (x + dx * cut, y), (x, y + dy * cut)], np.int32)
        cv2.fillPoly(labels, [corner], OUTSIDE)
