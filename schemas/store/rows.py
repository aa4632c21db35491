"""Read rows of a pixel array straight from its shard files.

For each call, zarr needs some milliseconds to plan, to schedule, and to read the shard's index again, longer than
decoding takes. Here a row is one chunk and the index stays in memory, so a read takes one range of the file and decodes
it. Zarr reads arrays with other chunks or codecs. Tests check that both ways return the same pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from schemas.errors import StoreError
from schemas.store.codecs import Decoder, row_decoder
from schemas.store.reading import LIST_DAMAGE, reading
from schemas.store.shards import ABSENT, absent_rows, file_key, read_shard_index, rows_per_file

Fetch = Callable[[int, int], bytes]
"""Reads bytes of one file, given their offset and number."""

READ_AT_ONCE_BYTES = 1 << 18
"""Rows whose bytes lie within this range are read at once, such as the segments of a tile. A bucket needs one request
for them; the bytes between them cost less than another request."""


class _Range(NamedTuple):
    """Where a row lies in its shard, and its place in the result."""

    offset: int
    length: int
    row: int
    place: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class RowReader:
    """Reads rows of one array.

    Args:
        array: An array whose chunks and shards are cut along its first axis alone.
        where: Its path or URL, for messages.
        check_file: Called before the first read of each file, with the file's key in the array; raises StoreError if
            the file is not the one that the build wrote.
    """

    def __init__(
        self, array: zarr.Array[Any], where: str, check_file: Callable[[str], None] = lambda _key: None
    ) -> None:
        self.array = array
        self.where = where
        self._check_file = check_file
        self._decode = row_decoder(array)
        self._slots = rows_per_file(array)
        self._indexes: dict[int, NDArray[np.uint64]] = {}
        self._absent: dict[int, Sequence[int]] = {}

    def read(self, rows: Sequence[int]) -> NDArray[Any]:
        """Read rows, in the given order.

        Args:
            rows: Indices of rows.

        Returns:
            An array (len(rows), *shape of a row).

        Raises:
            StoreError: A row is missing or damaged.
        """
        found = np.empty((len(rows), *self.array.shape[1:]), self.array.dtype)
        for number, group in groupby(enumerate(rows), key=lambda pair: pair[1] // self._slots):
            places = list(group)
            if self._decode:
                self._read_shard(self._decode, number, places, found)
            else:
                self._read_by_zarr(number, places, found)
        return found

    def _read_shard(self, decode: Decoder, number: int, places: list[tuple[int, int]], found: NDArray[Any]) -> None:
        """Read rows of one shard, given as (place in the result, row)."""
        first = places[0][1]
        with reading(f"{self.where} row {first}"):
            if number not in self._indexes:
                self._check_file(file_key(self.array, number))
                self._indexes[number] = read_shard_index(self.array, number)
            index = self._indexes[number]
        for _, row in places:
            self._check(row, absent=bool(index[row % self._slots, 0] == ABSENT))
        ranges: list[_Range] = []
        for place, row in places:
            offset, length = index[row % self._slots].tolist()
            ranges.append(_Range(offset, length, row, place))
        with reading(f"{self.where} row {first}"), _open(self.array.store_path / file_key(self.array, number)) as fetch:
            for near in _near(ranges):
                start, end = near[0].offset, max(part.end for part in near)
                # The last of these rows is named, because a file that is cut short lacks its end.
                with reading(f"{self.where} row {near[-1].row}"):
                    data = memoryview(fetch(start, end - start))
                for part in near:
                    with reading(f"{self.where} row {part.row}"):
                        decode(data[part.offset - start : part.end - start], found[part.place])

    def _read_by_zarr(self, number: int, places: list[tuple[int, int]], found: NDArray[Any]) -> None:
        if number not in self._absent:
            with reading(f"{self.where} row {places[0][1]}"):
                self._check_file(file_key(self.array, number))
                self._absent[number] = absent_rows(self.array, number)
        for place, row in places:
            self._check(row, absent=row in self._absent[number])
            with reading(f"{self.where} row {row}"):
                found[place] = self.array[row]

    def _check(self, row: int, *, absent: bool) -> None:
        if absent:
            raise StoreError(f"{self.where} row {row}", "is missing", LIST_DAMAGE)


def _near(ranges: list[_Range]) -> Generator[list[_Range]]:
    """Group the rows that are read at once."""
    near: list[_Range] = []
    for part in sorted(ranges):
        if near and part.end - near[0].offset > READ_AT_ONCE_BYTES:
            yield near
            near = []
        near.append(part)
    if near:
        yield near


@contextmanager
def _open(path: StorePath) -> Generator[Fetch]:
    """Open one file of a store to read ranges of bytes from it."""
    if isinstance(path.store, LocalStore):
        with (path.store.root / path.path).open("rb", buffering=0) as file:
            yield partial(_read_range, file, os.fstat(file.fileno()).st_size)
    else:
        yield partial(_get_range, path)


def _read_range(file: BinaryIO, size: int, offset: int, length: int) -> bytes:
    # Check the size first, because a read allocates as many bytes as it is asked for.
    if offset + length > size:
        raise ValueError("the shard is cut short")
    file.seek(offset)
    return file.read(length)


def _get_range(path: StorePath, offset: int, length: int) -> bytes:
    data = sync(path.get(default_buffer_prototype(), RangeByteRequest(offset, offset + length)))
    if data is None or len(data) != length:
        raise ValueError("the shard is cut short")
    return data.to_bytes()
