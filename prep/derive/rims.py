"""Find classes that nobody drew: rotating or resizing a mask with blending creates them along edges."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.derive.segments import present_codes
from schemas.picture.decode import LabelArray

MIN_PX = 20
"""A class with fewer pixels is not checked."""

BETWEEN_SHARE = 0.9
"""Fraction of a class's pixels that must lie between a lower and a higher code."""

SAMPLE_ROWS = 24
"""Three of this many rows are looked at first for blocks of one code."""


def rim_classes(labels: LabelArray, present: list[int]) -> dict[int, int]:
    """Return the codes that look like a blend of two others, with their numbers of pixels.

    Such a code fills no 3 x 3 block, and nearly all of its pixels have a lower and a higher code within two pixels,
    as a mean of two codes would.

    Args:
        labels: The mask, uint8 or uint16 (H, W).
        present: Its codes, in ascending order.
    """
    # In most masks, each code fills some 3 x 3 block, which a few rows already show.
    sampled = _solid_in_samples(labels)
    suspects = [code for code in present[1:-1] if code not in sampled]
    if not suspects:
        return {}
    lowest, highest = _extremes(labels, 3)
    solid = set(present_codes(labels, lowest == highest))
    suspects = [code for code in suspects if code not in solid]
    if not suspects:
        return {}
    lowest, highest = _extremes(labels, 5)
    found: dict[int, int] = {}
    for code in suspects:
        places = labels == code
        count = int(np.count_nonzero(places))
        between = np.count_nonzero(places & (lowest < code) & (highest > code))
        if count >= MIN_PX and between >= BETWEEN_SHARE * count:
            found[code] = count
    return found


def _solid_in_samples(labels: LabelArray) -> set[int]:
    """Return codes that fill a 3 x 3 block in the first three of every `SAMPLE_ROWS` rows."""
    groups = len(labels) // SAMPLE_ROWS
    if not groups or labels.shape[1] < 3:
        return set()
    rows = labels[: groups * SAMPLE_ROWS].reshape(groups, SAMPLE_ROWS, -1)
    first = rows[:, 0]
    in_column = (first == rows[:, 1]) & (first == rows[:, 2])
    in_block = in_column[:, 1:-1] & (first[:, :-2] == first[:, 1:-1]) & (first[:, 1:-1] == first[:, 2:])
    in_block &= in_column[:, :-2] & in_column[:, 2:]
    return set(present_codes(np.ascontiguousarray(first[:, 1:-1]), in_block))


def _extremes(labels: LabelArray, side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the lowest and the highest code in the square around each pixel."""
    square = np.ones((side, side), np.uint8)
    source = cast("Any", labels)
    return np.asarray(cv2.erode(source, square)), np.asarray(cv2.dilate(source, square))
