"""Paint nuclei as plain ellipses."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.sample.tissue_class import Look


def draw_nuclei(
    image: NDArray[np.uint8], region: NDArray[np.bool_], look: Look, generator: np.random.Generator
) -> None:
    """Paint nuclei at random pixels of a region, as many as its look has in that area.

    Args:
        image: uint8 (H, W, 3), RGB; changed in place.
        region: bool (H, W).
        look: Density, size and color of the nuclei.
        generator: Draws places and turns.
    """
    rows, columns = np.nonzero(region)
    count = int(len(rows) * look.nuclei / 10_000)
    if not count:
        return
    for place in generator.integers(0, len(rows), count):
        center = (int(columns[place]), int(rows[place]))
        radii = (look.radius_px, max(look.radius_px * 2 // 3, 2))
        cv2.ellipse(image, center, radii, float(generator.uniform(0, 180)), 0, 360, look.nucleus, -1)
