"""Read the class codes of a mask, even if its colors are the classes. Arrays are H, W; coordinates are x, y."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.classes import Color
from schemas.errors import SourceError
from schemas.picture.decode import LabelArray, image_header, read_image, read_mask

_BLENDED_COLORS = 3
"""With this many unknown colors or more, thin unknown lines count as blended edges; with fewer, as drawn outlines."""


def read_labels(
    path: Path, colors: Mapping[Color, int], *, nearest: bool = False, always: bool = False
) -> tuple[LabelArray, int]:
    """Read the class codes of a mask.

    Args:
        path: The mask. Its values are the codes; in an RGB file, its colors stand for the codes.
        colors: The code of each color, sRGB; empty if colors have no meaning.
        nearest: Whether an unknown color counts as the nearest known one; otherwise it is an error.
        always: Whether colors stand for the codes in gray and palettized files, too.

    Returns:
        The codes, uint8 or uint16 (H, W), and the number of pixels with an unknown color.

    Raises:
        SourceError: The file cannot be used, or has a color that belongs to no class.
    """
    if not colors or not (always or image_header(path).is_color):
        return read_mask(path), 0
    rgb = read_image(path, opaque=True).astype(np.int32)
    packed = np.asarray((rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2], np.int32)
    # A lookup table of all colors is faster than a search, because a mask has millions of pixels.
    codes = np.zeros(1 << 24, np.uint16 if max(colors.values()) > 255 else np.uint8)
    known = np.zeros(1 << 24, np.bool_)
    for (red, green, blue), code in colors.items():
        codes[(red << 16) | (green << 8) | blue] = code
        known[(red << 16) | (green << 8) | blue] = True
    unknown = ~known[packed]
    count = int(np.count_nonzero(unknown))
    if count and not nearest:
        raise _unknown_color(path, packed, unknown, count, colors)
    if count:
        for value in np.unique(packed[unknown]).tolist():
            codes[value] = colors[_nearest(value, colors)]
    return codes[packed], count


def _unknown_color(
    path: Path, packed: NDArray[np.int32], unknown: NDArray[np.bool_], count: int, colors: Mapping[Color, int]
) -> SourceError:
    """Make the error for colors that belong to no class."""
    y, x = (int(place) for place in np.argwhere(unknown)[0])
    first = int(packed[y, x])
    near = _nearest(first, colors)
    different = len(np.unique(packed[unknown]))
    is_thin = not cv2.erode(unknown.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).any()
    if is_thin and different >= _BLENDED_COLORS:
        what = f"has {count} px of {different} blended colors along edges, as anti-aliasing makes them"
        what += f" (first {_hex(first)} at x {x}, y {y})"
        return SourceError(path, what, "export it without smoothing, or give --nearest-color")
    of_first = int(np.count_nonzero(packed == first))
    what = f"has the unknown color {_hex(first)} at x {x}, y {y}, in {of_first} px"
    if different > 1:
        what += f", and {different - 1} more unknown colors"
    remedy = f"add it to the table of colors; the nearest there is #{bytes(near).hex()} (code {colors[near]})"
    if different >= _BLENDED_COLORS:
        remedy += "; or give --nearest-color, if the mask was resized or smoothed"
    return SourceError(path, what, remedy)


def _nearest(value: int, colors: Mapping[Color, int]) -> Color:
    channels = (value >> 16, (value >> 8) & 255, value & 255)
    return min(colors, key=lambda color: sum((a - b) ** 2 for a, b in zip(color, channels, strict=True)))


def _hex(value: int) -> str:
    return f"#{value:06x}"
