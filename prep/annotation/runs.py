"""Decode COCO's run lengths: the lengths of alternating runs outside and inside an area, column by column.

Source: the run-length coding in pycocotools' `maskApi.c`, which decodes without checking bounds. Arrays are H, W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Runs:
    """An area as run lengths that fill its image.

    Attributes:
        counts: int64 (n,), the lengths; the first run lies outside the area.
        size: H and W.
    """

    counts: NDArray[np.int64]
    size: tuple[int, int]

    def pixels(self) -> NDArray[np.bool_]:
        """Return the area, bool (H, W)."""
        values = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        return values.reshape(self.size[1], self.size[0]).T


def checked_runs(counts: str | Sequence[int], size: tuple[int, int]) -> Runs | None:
    """Check the run lengths in a file, and decode them if they are compressed.

    Args:
        counts: The lengths, or the text that encodes them.
        size: H and W of the image.

    Returns:
        The runs; None if they do not fill the image.
    """
    lengths = decoded(counts) if isinstance(counts, str) else counts
    if not all(0 <= length <= size[0] * size[1] for length in lengths) or sum(lengths) != size[0] * size[1]:
        return None
    return Runs(np.array(lengths, np.int64), size)


def decoded(text: str) -> list[int]:
    """Decode COCO's compressed run lengths.

    Each number is written in digits of five bits, the lowest first. From the fourth number on, the text holds the
    difference between a number and the one two places before it.

    Returns:
        The lengths; a negative length means that the text is damaged.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            if shift > 60:
                return [-1]
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return [-1] if shift else counts
