"""An object that drifts, turns and deforms from frame to frame.

Coordinates are x, y in pixels; time is counted in frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prep.sample.tissue_class import Look

STRETCH = 0.2
LOBES = (0.16, 0.1)
"""Amplitudes of the two and three lobes of an outline, as fractions of the radius."""

EXTENT = (1 + sum(LOBES)) / (1 - STRETCH)
"""Maximum distance of an outline from its center, in radii."""

_ANGLES = np.linspace(0, 2 * np.pi, 90, endpoint=False)


@dataclass(frozen=True)
class MovingObject:
    """One object of a scene.

    Attributes:
        radius_px: Mean radius in pixels.
        start_xy: float64 (2,), its center in frame 0.
        step_xy: float64 (2,), how far it drifts in a frame.
        size_xy: float64 (2,), width and height of the frame, at whose edges it turns back.
        phases: float64 (4,), where its turn, its stretch and its two kinds of lobes start, in radians.
        rates: float64 (4,), how much these change in a frame, in radians.
        nuclei: float64 (K, 2), places of its nuclei as fractions of the outline: angle in radians, and distance from 0
            to 1.
        look: Its colors and the size of its nuclei.
    """

    radius_px: float
    start_xy: NDArray[np.float64]
    step_xy: NDArray[np.float64]
    size_xy: NDArray[np.float64]
    phases: NDArray[np.float64]
    rates: NDArray[np.float64]
    nuclei: NDArray[np.float64]
    look: Look

    def center(self, frame: float) -> NDArray[np.float64]:
        """Return its center, float64 (2,); it stays a radius away from the edges of the frame."""
        room = np.maximum(self.size_xy - 2 * self.radius_px, 1.0)
        way = np.mod(self.start_xy - self.radius_px + frame * self.step_xy, 2 * room)
        return self.radius_px + room - np.abs(way - room)

    def outline(self, frame: float) -> NDArray[np.float64]:
        """Return its outline, float64 (90, 2)."""
        return self._placed(_ANGLES, np.ones(len(_ANGLES)), frame)

    def nuclei_xy(self, frame: float) -> NDArray[np.float64]:
        """Return the places of its nuclei, float64 (K, 2); they move with it."""
        return self._placed(self.nuclei[:, 0], self.nuclei[:, 1], frame)

    def _placed(self, angles: NDArray[np.float64], distances: NDArray[np.float64], frame: float) -> NDArray[np.float64]:
        turn, stretch, two, three = self.phases + frame * self.rates
        lobes = 1 + LOBES[0] * np.cos(2 * angles + two) + LOBES[1] * np.cos(3 * angles + three)
        radii = self.radius_px * distances * lobes
        longer = 1 + STRETCH * np.sin(stretch)
        points = np.stack([np.cos(angles) * longer, np.sin(angles) / longer], axis=1) * radii[:, None]
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        return points @ rotation + self.center(frame)


def draw_object(
    radius_px: float, start_xy: NDArray[np.float64], size_xy: NDArray[np.float64], generator: np.random.Generator
) -> MovingObject:
    """Draw how an object looks and moves.

    Args:
        radius_px: Mean radius in pixels.
        start_xy: float64 (2,), its center in frame 0.
        size_xy: float64 (2,), width and height of the frame.
        generator: Draws everything else.
    """
    direction = generator.uniform(0, 2 * np.pi)
    step_px = radius_px * generator.uniform(0.2, 0.4)
    count = int(generator.integers(10, 24))
    # The square root spreads the nuclei evenly over the area.
    places = np.stack([generator.uniform(0, 2 * np.pi, count), np.sqrt(generator.uniform(0, 0.75, count))], axis=1)
    red, green, blue = (int(channel) for channel in np.array((186, 132, 184)) + generator.integers(-32, 33, 3))
    return MovingObject(
        radius_px,
        start_xy,
        np.array([np.cos(direction), np.sin(direction)]) * step_px,
        size_xy,
        generator.uniform(0, 2 * np.pi, 4),
        generator.uniform(0.1, 0.3, 4) * generator.choice([-1, 1], 4),
        places,
        Look((red, green, blue), 0, max(round(radius_px / 9), 1), (red // 2, green // 3, blue * 3 // 4)),
    )
