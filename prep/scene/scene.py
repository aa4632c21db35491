"""Draw the frames of one scene: objects on stroma, and a vessel that passes over the first object.

Axes: T frames. Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.sample.field import smooth_field
from prep.sample.nuclei import draw_nuclei
from prep.sample.tissue_class import LOOKS, STROMA, VESSEL, Look
from prep.scene.moving_object import EXTENT, MovingObject, draw_object

RADIUS = (0.07, 0.11)
"""Minimum and maximum mean radius of an object, as a fraction of the frame's height."""

NOISE = 5.0
"""Standard deviation of the noise of a frame, in gray values."""

_ATTEMPTS = 200


@dataclass(frozen=True)
class Scene:
    """What a scene is made of.

    Attributes:
        ground: float32 (H, W, 3), the stroma.
        objects: The objects; an object hides those after it. The vessel passes over the first one.
        vessel_px: Radius of the vessel in pixels, which exceeds the first object.
        vessel_step_xy: float64 (2,), how far the vessel moves past the first object in a frame.
        hidden_frame: The frame in which the vessel hides the first object.
    """

    ground: NDArray[np.float32]
    objects: tuple[MovingObject, ...]
    vessel_px: float
    vessel_step_xy: NDArray[np.float64]
    hidden_frame: int


def draw_scene(
    height: int, width: int, frames: int, generator: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield the frames of a scene of three to five objects.

    The first object is hidden in frame T // 2, and visible in the first frame, and in the last of three or more.

    Args:
        height: H in pixels.
        width: W in pixels.
        frames: T, the number of frames.
        generator: Draws everything.

    Yields:
        Image uint8 (H, W, 3), RGB, and ids uint8 (H, W): the number of the visible object from 1, or 0.
    """
    scene = _draw_parts(height, width, frames, generator)
    for frame in range(frames):
        ids = np.zeros((height, width), np.uint8)
        image = scene.ground.astype(np.uint8)
        for number in range(len(scene.objects), 0, -1):
            item = scene.objects[number - 1]
            region = _filled(ids.shape, item.outline(frame))
            _paint(image, region, item.look, item.nuclei_xy(frame))
            ids[region] = number
        vessel = _vessel(scene, ids.shape, frame)
        _paint(image, vessel, LOOKS[VESSEL], np.zeros((0, 2)))
        ids[vessel] = 0
        blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 1), np.float32)
        noise = generator.normal(0, NOISE, blurred.shape)
        yield np.clip(blurred + noise, 0, 255).astype(np.uint8), ids


def _draw_parts(height: int, width: int, frames: int, generator: np.random.Generator) -> Scene:
    size_xy = np.array([width, height], np.float64)
    ground = np.full((height, width, 3), LOOKS[STROMA].ground, np.uint8)
    draw_nuclei(ground, np.ones((height, width), np.bool_), LOOKS[STROMA], generator)
    shade = smooth_field(height, width, max(height // 3, 1), generator)[..., None] * 8
    objects: list[MovingObject] = []
    wanted = int(generator.integers(3, 6))
    for _ in range(_ATTEMPTS):
        radius_px = height * generator.uniform(*RADIUS)
        start_xy = generator.uniform(radius_px, size_xy - radius_px)
        # In the first frame, no object hides another, so that each can be prompted there.
        apart = (np.hypot(*(start_xy - other.start_xy)) > (radius_px + other.radius_px) * EXTENT for other in objects)
        if len(objects) < wanted and all(apart):
            objects.append(draw_object(radius_px, start_xy, size_xy, generator))
    reach_px = objects[0].radius_px * EXTENT
    direction = generator.uniform(0, 2 * np.pi)
    # In the first frame, the vessel is twice as far away as it needs to be to leave the object visible.
    step_px = 4 * (2.1 * reach_px) / frames
    step_xy = np.array([np.cos(direction), np.sin(direction)]) * step_px
    return Scene(np.clip(ground + shade, 0, 255), tuple(objects), 1.1 * reach_px, step_xy, frames // 2)


def _vessel(scene: Scene, shape: tuple[int, ...], frame: int) -> NDArray[np.bool_]:
    """Return the pixels of the vessel, bool (H, W)."""
    x, y = scene.objects[0].center(frame) + (frame - scene.hidden_frame) * scene.vessel_step_xy
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= scene.vessel_px**2, np.bool_)


def _filled(shape: tuple[int, ...], outline: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Fill an outline: bool of this shape."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.asarray(np.round(outline), np.int32)], 1)
    return mask.view(np.bool_)


def _paint(image: NDArray[np.uint8], region: NDArray[np.bool_], look: Look, nuclei_xy: NDArray[np.float64]) -> None:
    """Paint a region with a dark rim and its nuclei."""
    layer = np.empty_like(image)
    layer[:] = look.ground
    inner = cv2.erode(region.view(np.uint8), np.ones((3, 3), np.uint8), iterations=max(look.radius_px // 3, 1))
    layer[inner == 0] = look.nucleus
    for x, y in np.round(nuclei_xy).astype(int).tolist():
        cv2.circle(layer, (x, y), look.radius_px, look.nucleus, -1)
    image[region] = layer[region]
