"""Draw a tile: outlines of segments in class colors, prompts, tinted predictions, and hatched ignored pixels.

A tint shows where one prediction lies. Where several overlap, their tints would mix, so their outlines are drawn.

Axes: O objects, S pixels per side of the tile. Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.points import Prompt
from schemas.prompt_kinds import PointLabel
from schemas.record import Record

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_HATCH_STEP_PX = 12

Color = tuple[int, int, int]

SMALL_PX = 9
"""Largest marker size that is drawn in thin lines: white for positive points, black for negative ones."""


def draw_overlay(
    record: Record,
    prompts: list[Prompt],
    colors: dict[int, Color],
    masks: NDArray[np.bool_] | None = None,
    prompt_objects: list[int] | None = None,
    side_px: int = 512,
) -> NDArray[np.uint8]:
    """Draw one tile.

    Args:
        record: The tile.
        prompts: The prompts to draw.
        colors: Color of each class id.
        masks: bool (O, S, S), the predicted mask of each object; if None, no predictions are drawn.
        prompt_objects: The index in the record of each prompt's object; if None, there is one prompt for each object,
            in order.
        side_px: Side of the picture in pixels.

    Returns:
        uint8 (side_px, side_px, 3), RGB.
    """
    overlay = Overlay(record, colors, side_px)
    overlay.add(record, prompts, masks, prompt_objects)
    return overlay.picture()


class Overlay:
    """The picture of one tile; its objects can be added in one or several calls of `add`.

    Args:
        record: The tile; its objects are drawn only when `add` gets them.
        colors: Color of each class id.
        side_px: Side of the picture in pixels.
    """

    def __init__(self, record: Record, colors: dict[int, Color], side_px: int) -> None:
        image = cv2.resize(record.image, (side_px, side_px), interpolation=cv2.INTER_AREA)
        self._tinted = np.asarray(image, np.uint8)
        hatch(self._tinted, _resized(record.ignore, side_px))
        self._colors = colors
        # Number of predictions that cover each pixel, and their outlines.
        self._covered = np.zeros((side_px, side_px), np.uint16)
        self._predicted: list[tuple[list[NDArray[np.int32]], Color]] = []
        self._plain = self._tinted.copy()
        self._outlines: list[tuple[list[NDArray[np.int32]], Color]] = []
        self._prompts: list[tuple[Prompt, Color]] = []
        self._factor = side_px / record.image.shape[0]

    def add(
        self,
        record: Record,
        prompts: list[Prompt],
        masks: NDArray[np.bool_] | None = None,
        prompt_objects: list[int] | None = None,
    ) -> None:
        """Add the objects of a record of this tile; see `draw_overlay`."""
        side_px = len(self._tinted)
        object_colors = [self._colors[int(class_id)] for class_id in record.class_ids]
        for mask, color in zip(masks if masks is not None else [], object_colors, strict=masks is not None):
            tint = _resized(mask, side_px)
            # Most objects are small, so only the rectangle around each mask is computed.
            x, y, width, height = cv2.boundingRect(tint.view(np.uint8))
            if width:
                around = np.s_[y : y + height, x : x + width]
                self._covered[around] += tint[around]
                tinted = np.asarray(cv2.LUT(self._tinted[around], _tints(color)), np.uint8)
                _draw_where(tint[around], tinted, self._tinted[around])
            self._predicted.append((_outlines(tint), color))
        for truth, color in zip(record.segments, object_colors, strict=True):
            self._outlines.append((_outlines(_resized(truth, side_px)), color))
        owners = prompt_objects if prompt_objects is not None else range(len(object_colors))
        self._prompts += [(prompt, object_colors[owner]) for prompt, owner in zip(prompts, owners, strict=True)]

    def picture(self) -> NDArray[np.uint8]:
        """Return the picture, uint8 (side_px, side_px, 3), RGB."""
        picture = self._tinted.copy()
        self._draw_overlaps(picture)
        # Predictions overlap, so all outlines are drawn after all tints.
        for outlines, color in self._outlines:
            cv2.drawContours(picture, outlines, -1, _BLACK, 4)
            cv2.drawContours(picture, outlines, -1, color, 2)
        for prompt, color in self._prompts:
            draw_prompt(picture, prompt, self._factor, color)
        return picture

    def _draw_overlaps(self, picture: NDArray[np.uint8]) -> None:
        """Replace mixed tints by the outlines of the predictions, in place."""
        mixed = self._covered > 1
        if not mixed.any():
            return
        _draw_where(mixed, self._plain, picture)
        drawn = picture.copy()
        for outlines, color in self._predicted:
            cv2.drawContours(drawn, outlines, -1, _WHITE, 3)
            cv2.drawContours(drawn, outlines, -1, color, 1)
        near = cv2.dilate(mixed.view(np.uint8), np.ones((5, 5), np.uint8))
        _draw_where(near.view(np.bool_), drawn, picture)


def side_by_side(panels: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Arrange panels of one size in rows, from left to right; the last row is filled with white.

    Args:
        panels: uint8 (H, W, 3) each.
        columns: Panels in a row.
    """
    blank = np.full_like(panels[0], 255)
    padded = panels + [blank] * (-len(panels) % columns)
    rows = [np.concatenate(padded[start : start + columns], 1) for start in range(0, len(padded), columns)]
    return np.concatenate(rows)


def _tints(color: Color) -> NDArray[np.uint8]:
    """Return what each value of a channel becomes under a tint, uint8 (1, 256, 3)."""
    return (0.6 * np.arange(256)[None, :, None] + 0.4 * np.array(color)).astype(np.uint8)


def _draw_where(mask: NDArray[np.bool_], source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Copy the pixels of a mask from one picture to another, in place."""
    cv2.copyTo(source, mask.view(np.uint8), target)


def _resized(mask: NDArray[np.bool_], side_px: int) -> NDArray[np.bool_]:
    return cv2.resize(mask.view(np.uint8), (side_px, side_px), interpolation=cv2.INTER_NEAREST).astype(bool)


def hatch(picture: NDArray[np.uint8], ignore: NDArray[np.bool_]) -> None:
    """Hatch the ignored pixels of a picture, in place.

    Args:
        picture: uint8 (H, W, 3), RGB.
        ignore: bool (H, W).
    """
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    picture[ignore] = picture[ignore] // 2 + 100
    picture[ignore & ((x + y) % _HATCH_STEP_PX < 2)] = _BLACK


def _outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32) for contour in found]


def draw_prompt(picture: NDArray[np.uint8], prompt: Prompt, factor: float, color: Color, size_px: int = 14) -> None:
    """Draw the points and the box of a prompt, in place.

    Args:
        picture: uint8 (H, W, 3), RGB.
        prompt: The prompt, in pixels of the tile.
        factor: Pixels of the picture for each pixel of the tile.
        color: Color of the points.
        size_px: Size of a point's marker in pixels of the picture.
    """
    corners: list[tuple[int, int]] = []
    for (x, y), label in zip((prompt["point_coords"] + 0.5) * factor, prompt["point_labels"], strict=True):
        place = (int(x), int(y))
        if label in (PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT):
            corners.append(place)
            continue
        if size_px <= SMALL_PX:
            # There is no room for a white border.
            is_positive = label == PointLabel.POSITIVE
            shape, shade = (cv2.MARKER_STAR, _WHITE) if is_positive else (cv2.MARKER_TILTED_CROSS, _BLACK)
            cv2.drawMarker(picture, place, shade, shape, size_px, 1)
            continue
        marker = cv2.MARKER_STAR if label == PointLabel.POSITIVE else cv2.MARKER_TILTED_CROSS
        cv2.drawMarker(picture, place, _WHITE, marker, size_px + 2, 5)
        cv2.drawMarker(picture, place, color, marker, size_px, 2)
    if corners:
        cv2.rectangle(picture, corners[0], corners[1], _WHITE, 1, cv2.LINE_AA)
