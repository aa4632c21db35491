"""The lengths of a store's files as the build wrote them: a file of another build is whole in itself."""

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
    """Compares files with the columns of checksums.

    Args:
        root: The store.
        where: Its path or URL, for messages.
        column: Reads a column by its path.
    """

    def __init__(self, root: StorePath, where: str, column: Callable[[str], NDArray[Any]]) -> None:
        self.root = root
        self.where = where
        self._column = column

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Length of each file in bytes, by its key.

        Raises:
            StoreError: The columns cannot be read, or are not one for each file.
        """
        keys, sizes = (self._column(f"checksums/{name}").tolist() for name in ("key", "size_bytes"))
        if len(keys) != len(sizes):
            raise StoreError(f"{self.where}/checksums", "are not one for each file", "build the store again")
        return dict(zip(keys, sizes, strict=True))

    def check(self, key: str) -> None:
        """Compare one file; one that is absent or empty is left to whoever reads it, and knows which row it is.

        Raises:
            StoreError: It has another length.
        """
        place = self.root / key
        try:
            held = sync(place.store.getsize(place.path))
        except FileNotFoundError:
            return
        written = self.sizes.get(key)
        if held and held != written:
            what = "was written by no build" if written is None else f"has {held} bytes, and the build wrote {written}"
            raise StoreError(f"{self.where}/{key}", what, LIST_DAMAGE)
