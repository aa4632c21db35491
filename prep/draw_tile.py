"""Draw one tile of a store: tinted segments with outlines, prompts, and hatched ignored pixels.

Arrays are H, W; coordinates are x, y. Axes: S pixels per side of the tile.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Collection
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.classes import Color
from schemas.overlay import draw_prompt, hatch
from schemas.store.tile import Tile

Layer = Literal["fill", "outline", "box", "points"]
"""One part of the picture of a tile."""

LAYERS: tuple[Layer, ...] = ("fill", "outline", "box", "points")
DEFAULT_LAYERS: tuple[Layer, ...] = ("fill", "outline")

GROUP_BYTES = 1 << 27
"""Maximum size of the segments that are read at once, because a tile may have thousands of segments."""

TINT = 0.35
"""Weight of the class color in the pixels of a segment."""

_SHADES = (1.0, 0.8, 0.6)
"""Brightness of neighboring objects of one class, in turn."""


def draw_tile(tile: Tile, colors: dict[int, Color], layers: Collection[Layer]) -> NDArray[np.uint8]:
    """Draw a tile at its own size.

    An outline lies inside its segment, so both outlines are visible where two segments share a border.

    Args:
        tile: The tile.
        colors: Color of each class id; an object of a sequence has the color of its track instead.
        layers: The parts to draw.

    Returns:
        uint8 (S, S, 3), RGB.
    """
    picture = tile.image.copy()
    hatch(picture, tile.ignore)
    width_px = max(len(picture) // 512, 1)
    outlines: NDArray[np.uint8] = np.zeros_like(picture)
    is_outline = np.zeros(picture.shape[:2], np.bool_)
    boxes = tile.store.column("objects/box_xyxy")[tile.object_rows].tolist()
    number = 0
    for group in tile.object_groups(GROUP_BYTES):
        for segment, object_id in zip(tile.segments(group), group, strict=True):
            left, top, right, bottom = boxes[number]
            window = (slice(top, bottom + 1), slice(left, right + 1))
            mask, color = segment[window], np.array(_color(tile, object_id, colors))
            if "fill" in layers:
                part = picture[window]
                # Neighbors of one class get different shades; tracks have different colors already.
                shade = color if tile.tracks else color * _SHADES[number % len(_SHADES)]
                part[mask] = ((1 - TINT) * part[mask] + TINT * shade).astype(np.uint8)
            edge = _inner_edge(mask, width_px)
            outlines[window][edge] = color
            is_outline[window] |= edge
            number += 1
    if "outline" in layers:
        picture[is_outline] = outlines[is_outline]
    _draw_prompts(picture, tile, colors, layers)
    return picture


def track_color(track: int) -> Color:
    """Return the color of an object of a sequence, the same in all frames."""
    # Steps of the golden angle give neighboring numbers distinct colors.
    red, green, blue = colorsys.hsv_to_rgb(track * (math.sqrt(5) - 1) / 2 % 1, 0.9, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _color(tile: Tile, object_id: int, colors: dict[int, Color]) -> Color:
    return track_color(tile.tracks[object_id]) if tile.tracks else colors[tile.classes[object_id]]


def _inner_edge(mask: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask that are at most `width_px` from a pixel outside it."""
    kernel = np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def _draw_prompts(picture: NDArray[np.uint8], tile: Tile, colors: dict[int, Color], layers: Collection[Layer]) -> None:
    negatives = tile.store.manifest.negative_points > 0
    if "box" in layers:
        for object_id, prompt in tile.prompts("box").items():
            draw_prompt(picture, prompt, 1.0, _color(tile, object_id, colors))
    if "points" in layers:
        # If a tile has many points, a marker takes half of the room that each point has.
        room_px = math.sqrt(picture.shape[0] * picture.shape[1] / (max(len(tile.classes), 1) * 16)) / 2
        size_px = round(min(max(room_px, 3), max(len(picture) / 48, 5)))
        for object_id, prompt in tile.prompts("multi_point", negatives=negatives).items():
            draw_prompt(picture, prompt, 1.0, _color(tile, object_id, colors), size_px)
