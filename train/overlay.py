"""Pictures of tiles: truth outlined in its class colour, prediction tinted, prompt drawn.

Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.prompts import PointLabel, Prompt
from schemas.record import Record

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def draw_overlay(
    record: Record,
    masks: NDArray[np.bool_],
    prompts: list[Prompt],
    colors: dict[int, tuple[int, int, int]],
    side_px: int = 512,
) -> NDArray[np.uint8]:
    """Draw one tile.

    Args:
        record: The tile.
        masks: bool (O, S, S), the prediction for each object.
        prompts: The prompt of each object.
        colors: Colour of each class id.
        side_px: Side of the picture.

    Returns:
        uint8 (side_px, side_px, 3).
    """
    factor = side_px / record.image.shape[0]
    picture = np.asarray(cv2.resize(record.image, (side_px, side_px), interpolation=cv2.INTER_AREA), np.uint8)
    for mask, class_id in zip(masks, record.class_ids, strict=True):
        tint = _resized(mask, side_px)
        picture[tint] = (0.6 * picture[tint] + 0.4 * np.array(colors[int(class_id)])).astype(np.uint8)
    # All outlines above all tints, since predictions overlap.
    for truth, class_id in zip(record.segments, record.class_ids, strict=True):
        color = colors[int(class_id)]
        for line, width in ((_BLACK, 4), (color, 2)):
            cv2.drawContours(picture, _outlines(_resized(truth, side_px)), -1, line, width)
    for prompt, class_id in zip(prompts, record.class_ids, strict=True):
        _draw_prompt(picture, prompt, factor, colors[int(class_id)])
    return picture


def side_by_side(panels: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Lay panels of one size out in rows."""
    blank = np.full_like(panels[0], 255)
    padded = panels + [blank] * (-len(panels) % columns)
    rows = [np.concatenate(padded[start : start + columns], 1) for start in range(0, len(padded), columns)]
    return np.concatenate(rows)


def _resized(mask: NDArray[np.bool_], side_px: int) -> NDArray[np.bool_]:
    return cv2.resize(mask.view(np.uint8), (side_px, side_px), interpolation=cv2.INTER_NEAREST).astype(bool)


def _outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32) for contour in found]


def _draw_prompt(picture: NDArray[np.uint8], prompt: Prompt, factor: float, color: tuple[int, int, int]) -> None:
    places = [tuple(int(value) for value in (xy + 0.5) * factor) for xy in prompt["point_coords"]]
    corners = {}
    for place, label in zip(places, prompt["point_labels"], strict=True):
        if label in (PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT):
            corners[int(label)] = place
        else:
            marker = cv2.MARKER_STAR if label == PointLabel.POSITIVE else cv2.MARKER_TILTED_CROSS
            cv2.drawMarker(picture, place, _WHITE, marker, 16, 5)
            cv2.drawMarker(picture, place, color, marker, 14, 2)
    if corners:
        cv2.rectangle(
            picture, corners[PointLabel.BOX_TOP_LEFT], corners[PointLabel.BOX_BOTTOM_RIGHT], _WHITE, 1, cv2.LINE_AA
        )
