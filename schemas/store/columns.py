"""Read the columns of a store, whole or a few rows at a time, and check their values before they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from schemas.errors import StoreError
from schemas.manifest import Manifest
from schemas.store.check_columns import WHOLE_COLUMNS, check_checksums, check_column
from schemas.store.column_parts import ColumnParts
from schemas.store.reading import LIST_DAMAGE, reading
from schemas.store.shards import absent_rows, file_key, rows_per_file


class Columns:
    """The columns of a store, each read when it is first used.

    Args:
        where: Path or URL of the store, for messages.
        array: Returns an array of the store by its path.
        manifest: Returns the manifest; columns of checksums are read without it.
        check_file: Refuses a file, given by its path in the store, if it has another length than the build wrote.
    """

    def __init__(
        self,
        where: str,
        array: Callable[[str], zarr.Array[Any]],
        manifest: Callable[[], Manifest],
        check_file: Callable[[str], None],
    ) -> None:
        self._where = where
        self._array = array
        self._manifest = manifest
        self._check_file = check_file
        self._whole: dict[str, NDArray[Any]] = {}
        self._parts = ColumnParts(self._read_part)

    def whole(self, path: str) -> NDArray[Any]:
        """Read a whole column; see `Store.column`."""
        if path not in self._whole:
            where, array = f"{self._where}/{path}", self._array(path)
            with reading(where):
                # A column with rows that are in no file is refused.
                for number in range(-(-int(array.shape[0]) // rows_per_file(array))):
                    self._check_part(path, array, number)
                values = np.asarray(array[:])
            if path.startswith("checksums/"):
                check_checksums(where, path, values)
            else:
                check_column(where, path, values, self._manifest(), self.whole)
            # All callers share this array.
            values.flags.writeable = False
            self._whole[path] = values
        return self._whole[path]

    def rows(self, path: str, start: int, stop: int) -> NDArray[Any]:
        """Read consecutive rows of a column; see `Store.column_rows`."""
        if path in self._whole or path in WHOLE_COLUMNS:
            return self.whole(path)[start:stop]
        return self._parts.rows(path, start, stop, rows_per_file(self._array(path)))

    def _read_part(self, path: str, number: int) -> NDArray[Any]:
        """Read and check the rows of a column that are in one file."""
        array, where = self._array(path), f"{self._where}/{path}"
        start = number * rows_per_file(array)
        stop = min(start + rows_per_file(array), int(array.shape[0]))
        with reading(where):
            self._check_part(path, array, number)
            values = np.asarray(array[start:stop])
        check_column(where, path, values, self._manifest(), lambda other: self.rows(other, start, stop))
        return values

    def _check_part(self, path: str, array: zarr.Array[Any], number: int) -> None:
        if not path.startswith("checksums/"):
            self._check_file(f"{path}/{file_key(array, number)}")
        for row in absent_rows(array, number):
            raise StoreError(f"{self._where}/{path} row {row}", "is missing", LIST_DAMAGE)
