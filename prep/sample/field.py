"""Random fields from which tissue is drawn: smooth ones, speckles and fibers.

Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FIBER_STEP_PX = 3
"""Distance from one place to the next along a fiber."""


def smooth_field(height: int, width: int, grain_px: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise, float32 (H, W), that changes over about `grain_px` pixels; its standard deviation is about 0.85."""
    coarse = generator.normal(size=(height // grain_px + 4, width // grain_px + 4)).astype(np.float32)
    size = (coarse.shape[1] * grain_px, coarse.shape[0] * grain_px)
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.float32)[
        grain_px : grain_px + height, grain_px : grain_px + width
    ]


def speckles(height: int, width: int, grain_px: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Speckles of about `grain_px` pixels, float32 (H, W), of unit variance in this image."""
    field = smooth_field(height, width, grain_px, generator)
    return field / np.float32(field.std())


def fibers(
    angle: NDArray[np.float32], grain_px: int, steps: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Speckles that are drawn out along a direction: sums along a line through each pixel.

    Args:
        angle: float32 (H, W), the direction at each pixel in radians.
        grain_px: Width of a fiber in pixels.
        steps: Places on the line to each side of the pixel, each `FIBER_STEP_PX` from the one before.
        generator: Draws the speckles.

    Returns:
        float32 (H, W), of unit variance in this image.

    Source: Cabral and Leedom, Imaging vector fields using line integral convolution, 1993.
    """
    height, width = angle.shape
    noise = smooth_field(height, width, grain_px, generator)
    step_x, step_y = FIBER_STEP_PX * np.cos(angle), FIBER_STEP_PX * np.sin(angle)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    total = noise.copy()
    for way in (1, -1):
        x, y = columns, rows
        for _ in range(steps):
            x, y = x + way * _at(step_x, x, y, cv2.INTER_NEAREST), y + way * _at(step_y, x, y, cv2.INTER_NEAREST)
            total += _at(noise, x, y, cv2.INTER_LINEAR)
    return total / np.float32(total.std())


def _at(
    field: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32], interpolation: int
) -> NDArray[np.float32]:
    return np.asarray(cv2.remap(field, x, y, interpolation, borderMode=cv2.BORDER_REFLECT), np.float32)
