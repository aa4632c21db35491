"""Read a few rows of a column without the rest of it: a store of ten million tiles has columns of gigabytes.

A part is what one file of the column holds, some thousand rows.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_BYTES = 1 << 28
"""Maximum size of the parts that stay in memory. The columns of a store with a million objects fit."""

ReadPart = Callable[[str, int], NDArray[Any]]
"""Reads one part, given the path of the column and the number of the part."""


class ColumnParts:
    """The parts of columns that were used last. Several threads may read them.

    Args:
        read_part: Reads and checks a part that is not in memory.
        kept_bytes: Maximum size of the parts that stay in memory.
    """

    def __init__(self, read_part: ReadPart, kept_bytes: int = KEPT_BYTES) -> None:
        self._read_part = read_part
        self._left_bytes = kept_bytes
        self._kept: dict[tuple[str, int], NDArray[Any]] = {}
        # To check a part, `read_part` may read another one.
        self._lock = RLock()

    def rows(self, path: str, start: int, stop: int, part_rows: int) -> NDArray[Any]:
        """Return rows of a column, read-only.

        Args:
            path: The column.
            start: The first row.
            stop: The row after the last one.
            part_rows: Number of rows of a part.

        Raises:
            StoreError: A part is missing or damaged.
        """
        first, last = start // part_rows, max(start, stop - 1) // part_rows
        parts = [self._part(path, number) for number in range(first, last + 1)]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        values.flags.writeable = False
        return values[start - first * part_rows : stop - first * part_rows]

    def _part(self, path: str, number: int) -> NDArray[Any]:
        key = path, number
        with self._lock:
            part = self._kept.pop(key, None)
            if part is None:
                part = self._read_part(path, number)
                self._left_bytes -= part.nbytes
                while self._left_bytes < 0 and self._kept:
                    self._left_bytes += self._kept.pop(next(iter(self._kept))).nbytes
            # A dict keeps the order of insertion, so the part that was used last comes last.
            self._kept[key] = part
            return part
