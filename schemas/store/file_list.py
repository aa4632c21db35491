"""Check the lengths of a store's files: a file of another build may be valid, but its length usually differs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from zarr.core.sync import sync
from zarr.storage import StorePath

from schemas.errors import StoreError
from schemas.store.reading import LIST_DAMAGE


class FileList:
    """The files that a build wrote, as listed in the columns `checksums/*`.

    Args:
        root: The store.
        where: Its path or URL, for messages.
        column: Returns a column by its path.
    """

    def __init__(self, root: StorePath, where: str, column: Callable[[str], NDArray[Any]]) -> None:
        self.root = root
        self.where = where
        self._column = column

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Length in bytes of each file by its path in the store.

        Raises:
            StoreError: The columns cannot be read, or differ in length.
        """
        keys, sizes = (self._column(f"checksums/{name}").tolist() for name in ("key", "size_bytes"))
        if len(keys) != len(sizes):
            raise StoreError(f"{self.where}/checksums", "has columns of different lengths", "build the store again")
        return dict(zip(keys, sizes, strict=True))

    def check(self, key: str) -> None:
        """Compare the length of one file with the list.

        An absent or empty file passes: the code that reads it reports which row is missing.

        Args:
            key: The file's path in the store.

        Raises:
            StoreError: The file has another length, or no build wrote it.
        """
        place = self.root / key
        try:
            held = sync(place.store.getsize(place.path))
        except FileNotFoundError:
            return
        written = self.sizes.get(key)
        if held and held != written:
            if written is None:
                what = "was not written by the build"
            else:
                what = f"has {held} bytes, but the build wrote {written}"
            raise StoreError(f"{self.where}/{key}", what, LIST_DAMAGE)
