"""Draw glands with a pale center in pink stroma.

Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.sample.nuclei import draw_nuclei
from prep.sample.tissue_class import EXCLUDE, LOOKS, STROMA, TUMOR


def draw_glands(height: int, width: int, generator: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw glands: a rim of nuclei around a pale lumen, and both belong to the gland; holes alike belong to none."""
    labels = np.full((height, width), STROMA, np.uint8)
    image = np.full((height, width, 3), LOOKS[STROMA].ground, np.uint8)
    lumen = np.zeros((height, width), np.uint8)
    taken = np.zeros((height, width), np.uint8)
    for number in range(height * width // 9_000):
        outline = _draw_blob(height, width, generator)
        own = _filled(labels.shape, outline)
        if taken[cv2.dilate(own, np.ones((9, 9), np.uint8)) > 0].any():
            continue
        taken |= own
        middle = outline.mean(0)
        inner = _filled(labels.shape, middle + (outline - middle) * generator.uniform(0.4, 0.65))
        # Every fourth one is a hole in the stroma, as pale as a lumen, and is not a gland.
        if number % 4:
            labels[own > 0] = TUMOR
            image[own > 0] = LOOKS[TUMOR].ground
        lumen |= inner
    image[lumen > 0] = LOOKS[EXCLUDE].ground
    draw_nuclei(image, (labels == TUMOR) & (lumen == 0), replace(LOOKS[TUMOR], nuclei=22.0, radius_px=6), generator)
    draw_nuclei(image, (labels == STROMA) & (lumen == 0), replace(LOOKS[STROMA], nuclei=2.0), generator)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 1), np.uint8)
    noise = generator.normal(0, 5, image.shape).astype(np.float32)
    return np.clip(image + noise, 0, 255).astype(np.uint8), labels


def _filled(shape: tuple[int, ...], outline: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Fill an outline: uint8 of this shape, 1 inside."""
    mask = np.zeros(shape[:2], np.uint8)
    corners = np.asarray(np.round(outline), np.int32)
    cv2.fillPoly(mask, [corners], 1)
    return mask


def _draw_blob(height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw the outline of a lobed, stretched blob: float64 (60, 2), x and y."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    phases = generator.uniform(0, 2 * np.pi, 3)
    lobes = 0.2 * np.cos(2 * angles + phases[0]) + 0.15 * np.cos(3 * angles + phases[1])
    radius_px = generator.uniform(18, 52) * (1 + lobes)
    points = np.stack([np.cos(angles) * generator.uniform(1, 1.8), np.sin(angles)], 1) * radius_px[:, None]
    turn = np.array([[np.cos(phases[2]), -np.sin(phases[2])], [np.sin(phases[2]), np.cos(phases[2])]])
    return points @ turn + generator.uniform((0, 0), (width, height))
