"""Sum weighted class probabilities over a ROI, without storing an array of the whole ROI for each class.

Axes: H and W pixels of the ROI, h and w pixels of a part of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StoreError

MAX_SUMS_BYTES = 1 << 35
"""Largest memory for one ROI while its tiles are blended; it is enough for half a gigapixel with thirty classes."""

_BLOCK_PX = 64
"""Side of the blocks in which sums are kept."""


class SumsMemory:
    """Counts the memory that the sums of one ROI take, of all its bands together.

    Args:
        name: Name of the ROI, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count more memory.

        Raises:
            StoreError: The sums exceed `MAX_SUMS_BYTES`.
        """
        self._taken_bytes += size_bytes
        if self._taken_bytes > MAX_SUMS_BYTES:
            what = f"needs more than {MAX_SUMS_BYTES >> 30} GiB of memory to be stitched"
            raise StoreError(self._name, what, "leave out --stitch")

    def give_back(self, size_bytes: int) -> None:
        """Count less memory."""
        self._taken_bytes -= size_bytes


class ClassSums:
    """The sums of some rows of a ROI, in half precision.

    A mask of instances may have a thousand classes. So where no tiles overlap, only the highest value of each pixel is
    kept. Elsewhere the sums are kept in blocks, and each block holds only the classes that have a pixel in it.

    Args:
        memory: Counts the memory of the ROI's sums.
        alone: bool (H, W), True where no tiles overlap. There each class adds at most one value, in the order of the
            classes.

    Attributes:
        size_bytes: Memory that was counted.
    """

    def __init__(self, memory: SumsMemory, alone: NDArray[np.bool_]) -> None:
        self._memory = memory
        self._alone = alone
        self._places, self._highest = np.zeros(alone.shape, np.uint16), np.zeros(alone.shape, np.float16)
        self._blocks: dict[tuple[int, int], dict[int, NDArray[np.float16]]] = {}
        self.size_bytes = 0

    def add(self, place: int, values: NDArray[np.float16], top: int, left: int) -> None:
        """Add to the sums of one class.

        Args:
            place: Position of the class in the list of classes.
            values: float16 (h, w), the values to add.
            top: Row of the ROI at which the values start.
            left: Column of the ROI at which the values start.

        Raises:
            StoreError: The sums exceed `MAX_SUMS_BYTES`.
        """
        height, width = values.shape
        window = (slice(top, top + height), slice(left, left + width))
        alone, highest = self._alone[window], self._highest[window]
        higher = alone & (values > highest)
        self._places[window][higher], highest[higher] = place, values[higher]
        values = np.where(alone, np.float16(0), values)
        for y, rows, own_rows in _overlaps(top, height):
            for x, columns, own_columns in _overlaps(left, width):
                added = values[own_rows, own_columns]
                if added.any():
                    self._block(y, x, place)[rows, columns] += added

    def best(self) -> tuple[NDArray[np.uint16], NDArray[np.float16]]:
        """Return for each pixel the position of the class with the highest sum, and that sum; both (H, W).

        If several sums are equal, the first class is chosen. Where all sums are zero, the position is 0.
        """
        places, sums = self._places.copy(), self._highest.copy()
        for (y, x), by_place in self._blocks.items():
            window = tuple(slice(start * _BLOCK_PX, (start + 1) * _BLOCK_PX) for start in (y, x))
            for place, own in sorted(by_place.items()):
                higher = own > sums[window]
                places[window][higher], sums[window][higher] = place, own[higher]
        return places, sums

    def _block(self, y: int, x: int, place: int) -> NDArray[np.float16]:
        by_place = self._blocks.setdefault((y, x), {})
        if place not in by_place:
            height, width = self._alone.shape
            shape = (min(height - y * _BLOCK_PX, _BLOCK_PX), min(width - x * _BLOCK_PX, _BLOCK_PX))
            by_place[place] = np.zeros(shape, np.float16)
            self.size_bytes += by_place[place].nbytes
            self._memory.take(by_place[place].nbytes)
        return by_place[place]


def _overlaps(start: int, length: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield the number of each block that a range overlaps, the overlap within the block, and within the range."""
    end = start + length
    for number in range(start // _BLOCK_PX, -(-end // _BLOCK_PX)):
        first, last = max(start, number * _BLOCK_PX), min(end, (number + 1) * _BLOCK_PX)
        yield (
            number,
            slice(first - number * _BLOCK_PX, last - number * _BLOCK_PX),
            slice(first - start, last - start),
        )
