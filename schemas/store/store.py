"""The read-only store: its manifest, its columns, and its tiles by index.

Files are opened when they are first used, and pickling a store keeps only its path. So a worker process opens its own
files, however it was started.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import zarr
from numpy.typing import NDArray
from pydantic import ValidationError

from schemas.errors import StoreError, first_fault
from schemas.layout import ATTRIBUTES_KEY, SCHEMA_VERSION, SEQUENCE_SCHEMA_VERSION
from schemas.manifest import SPLITS, Manifest, SourceRecord
from schemas.points import Prompt
from schemas.prompt_kinds import POINT_SETS, PointSet, PromptKind
from schemas.record import Record
from schemas.store.check_arrays import checked_array
from schemas.store.columns import Columns
from schemas.store.file_list import FileList
from schemas.store.location import normal_location, zarr_location
from schemas.store.reading import reading
from schemas.store.rows import RowReader
from schemas.store.sequence import SequenceFrame, frames_of
from schemas.store.tile import Tile


def open_store(path: str | Path) -> Store:
    """Open a finished store for reading.

    Args:
        path: The store's directory, or its URL in an object store (`s3://bucket/bcss.zarr`).

    Raises:
        StoreError: There is no store, it is unfinished, or it has another schema version.
    """
    store = Store(path)
    # Reading the manifest here makes a wrong path fail here, and not in a worker later.
    _ = store.manifest
    return store


class Store:
    """Tiles with their objects and prompts; `open_store` makes one.

    `len(store)` counts tiles, `store[i]` reads a whole tile, `store.tile(i)` returns a tile that reads each array when
    it is first used, and iteration reads all tiles in turn.

    Args:
        path: As for `open_store`.
        check_files: Whether to refuse a file whose length differs from the one that the build wrote.
    """

    def __init__(self, path: str | Path, *, check_files: bool = True) -> None:
        self.path = normal_location(path)
        self.check_files = check_files
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._columns = Columns(self.path, self.array, lambda: self.manifest, self._check_file)
        self._readers: dict[str, RowReader] = {}
        self._frames: dict[str, tuple[SequenceFrame, ...]] = {}

    def __reduce__(self) -> tuple[Callable[[str, bool], Store], tuple[str, bool]]:
        return _unpickled, (self.path, self.check_files)

    def __len__(self) -> int:
        return self.manifest.complete.tiles

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Store({self.path!r}: {self.summary})"

    @property
    def summary(self) -> str:
        """What the store holds, in one line."""
        manifest = self.manifest
        splits = self.column("tiles/split")
        counts = ", ".join(f"{split} {int((splits == split).sum())}" for split in SPLITS)
        names = ", ".join(info.name for info in manifest.classes)
        patients = len(set(self.column("tiles/patient")))
        place = f" in {len(self.sequences)} sequences" if self.sequences else ""
        return (
            f"{len(self)} tiles of {manifest.tile_size_px} px from {patients} patient{'s' * (patients != 1)} "
            f"({counts}); {manifest.complete.objects} {manifest.object_kind} objects of {names}{place}"
        )

    @cached_property
    def group(self) -> zarr.Group:
        """The Zarr group, read-only."""
        with reading(self.path, "is not a Zarr v3 group", "make it again with `bcss-prep build`"):
            try:
                return zarr.open_group(zarr_location(self.path), mode="r", zarr_format=3)
            except FileNotFoundError as error:
                raise StoreError(self.path, "no store is there", "make one with `bcss-prep build`") from error

    @cached_property
    def manifest(self) -> Manifest:
        """How the store was made; see `Manifest`.

        Raises:
            StoreError: The store is unfinished or has another schema version, or its manifest is damaged.
        """
        attributes = cast("dict[str, Any]", self.group.attrs.asdict()).get(ATTRIBUTES_KEY)
        if not isinstance(attributes, dict) or "complete" not in attributes:
            raise StoreError(self.path, "is not a finished store", "run `bcss-prep build` again")
        entries = cast("dict[str, Any]", attributes)
        if entries.get("schema_version") not in (SCHEMA_VERSION, SEQUENCE_SCHEMA_VERSION):
            found, known = entries.get("schema_version"), f"{SCHEMA_VERSION} and {SEQUENCE_SCHEMA_VERSION}"
            raise StoreError(
                self.path,
                f"has schema version {found!r}, but this program reads versions {known}",
                "build it again with the installed `bcss-prep` and `--overwrite`",
            )
        try:
            return Manifest.model_validate(entries)
        except ValidationError as error:
            what = f"has a damaged manifest ({first_fault(error)})"
            raise StoreError(self.path, what, "build it again with `--overwrite`") from error

    def array(self, path: str) -> zarr.Array[Any]:
        """Return a Zarr array by its path in the group, for example `images`.

        Raises:
            StoreError: The store has no such array, or its metadata is damaged.
        """
        if path not in self._arrays:
            where = f"{self.path}/{path}"
            with reading(where, "is missing or damaged", "build the store again"):
                try:
                    array = self.group[path]
                except KeyError as error:
                    raise StoreError(where, "does not exist", "see docs/reference/store.md") from error
            if not isinstance(array, zarr.Array):
                raise StoreError(where, "is not an array", "build the store again")
            # `bcss-prep build --overwrite` reads the checksums of a store whose manifest may be damaged.
            manifest = None if path.startswith("checksums/") else self.manifest
            self._arrays[path] = checked_array(where, array, path, manifest)
        return self._arrays[path]

    def column(self, path: str) -> NDArray[Any]:
        """Read a whole column, for example `objects/class_id`; it stays in memory and is read-only.

        Raises:
            StoreError: The column is missing or damaged, or holds values that no build writes.
        """
        return self._columns.whole(path)

    def column_rows(self, path: str, start: int, stop: int) -> NDArray[Any]:
        """Return consecutive rows of a column, read-only; only the files that hold them are read and checked.

        Args:
            path: The column.
            start: The first row.
            stop: The row after the last one.

        Raises:
            StoreError: The column is missing or damaged there, or holds values that no build writes.
        """
        return self._columns.rows(path, start, stop)

    def rows(self, path: str, rows: Sequence[int]) -> NDArray[Any]:
        """Read rows of a pixel array, in the given order.

        Args:
            path: `images`, `labels`, `ignore` or `segments`.
            rows: Tiles, or rows of objects for `segments`.

        Raises:
            StoreError: A row is missing or damaged.
        """
        if path not in self._readers:
            where = f"{self.path}/{path}"
            self._readers[path] = RowReader(self.array(path), where, lambda key: self._check_file(f"{path}/{key}"))
        return self._readers[path].read(rows)

    def tile(self, index: int) -> Tile:
        """Return one tile without reading it yet; a negative index counts from the end.

        Raises:
            IndexError: There is no such tile.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} tiles, and {index} is not one of them")
        return Tile(self, int(index) % len(self))

    def __getitem__(self, index: int) -> Record:
        """Read one tile whole.

        Raises:
            IndexError: There is no such tile.
            StoreError: It is damaged.
        """
        return self.tile(index).record()

    def prompts(
        self,
        index: int,
        kind: PromptKind = "box",
        *,
        negatives: bool = False,
        object_ids: Collection[int] | None = None,
    ) -> dict[int, Prompt]:
        """Return the prompts of one tile's objects.

        Args:
            index: The tile.
            kind: `centroid`, `multi_point` or `box`.
            negatives: Whether to append negative points.
            object_ids: The selected objects; all of the tile unless given.

        Returns:
            `{object_id: {"point_coords": float32 (K, 2) as x, y, "point_labels": int32 (K,)}}`, where a label is
            1 for a click, 0 for a negative click, 2 and 3 for a box's top-left and bottom-right corner.

        Raises:
            StoreError: The kind is unknown, or the store has no negative points.
        """
        return self.tile(index).prompts(kind, object_ids, negatives=negatives)

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences, in the order of the store; empty for a store of ROIs."""
        return self.manifest.sequences

    def sequence(self, name: str) -> tuple[SequenceFrame, ...]:
        """Return the frames of a sequence in the order of their numbers.

        Args:
            name: The sequence, one of `sequences`.

        Raises:
            StoreError: The store has no such sequence, or its columns are damaged.
        """
        if name not in self._frames:
            self._frames[name] = frames_of(self, name)
        return self._frames[name]

    @cached_property
    def files(self) -> FileList:
        """The list of the store's files, as the build wrote it."""
        return FileList(self.group.store_path, self.path, self.column)

    @cached_property
    def point_sets(self) -> dict[str, PointSet]:
        """The sets of points that the build wrote, by name; a store that was built before a set was added lacks it."""
        written = self.files.sizes
        return {
            name: points
            for name, points in POINT_SETS.items()
            if f"{points.coords_path}/zarr.json" in written or f"{points.labels_path}/zarr.json" in written
        }

    def source(self, frame_id: str) -> SourceRecord:
        """Return the manifest's entry of a ROI: its files, size, resolution and palette."""
        return self._sources[frame_id]

    @cached_property
    def _sources(self) -> dict[str, SourceRecord]:
        return {source.frame_id: source for source in self.manifest.sources}

    def _check_file(self, key: str) -> None:
        if self.check_files:
            self.files.check(key)


def _unpickled(path: str, check_files: bool) -> Store:
    return Store(path, check_files=check_files)
