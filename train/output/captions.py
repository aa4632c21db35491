"""Write a caption below a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_SIZE_PX, _LINE_PX, _MARGIN_PX, _LINES = 17, 22, 5, 3


def with_caption(picture: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    """Return a picture with a white strip below it that holds its caption.

    Args:
        picture: uint8 (H, W, 3), RGB.
        caption: The caption; what does not fit into three lines ends in dots.

    Returns:
        uint8 (H + 76, W, 3), so that pictures of one size stay equal.
    """
    width = picture.shape[1]
    strip = Image.new("RGB", (width, _LINES * _LINE_PX + 2 * _MARGIN_PX), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(_SIZE_PX)
    lines = _wrapped(caption, draw, font, width - 2 * _MARGIN_PX)
    for number, line in enumerate(lines):
        draw.text((_MARGIN_PX, _MARGIN_PX + number * _LINE_PX), line, "black", font)
    return np.concatenate((picture, np.asarray(strip, np.uint8)))


def _wrapped(
    text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int
) -> list[str]:
    """Break a text into lines that fit, after a space where there is one, and else within a word."""
    lines: list[str] = []
    while text and len(lines) < _LINES:
        count = len(text)
        while draw.textlength(text[:count], font) > width_px:
            count -= 1
        if count < len(text):
            count = text.rfind(" ", 1, count + 1) + 1 or count
        lines.append(text[:count].rstrip())
        text = text[count:]
    return [*lines[:-1], f"{lines[-1][:-3]}..."] if text else lines
