"""The read-only store: tiles, segments and prompts by index.

Nothing is opened before it is used, and a pickled store is its path alone, so that a worker process, however it was
started, opens files of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError

from schemas.bits import unpack_mask
from schemas.errors import BcssError, StoreError, unreadable
from schemas.layout import ATTRIBUTES_KEY, SCHEMA_VERSION
from schemas.limits import MAX_SEGMENT_BYTES
from schemas.manifest import SPLITS, Manifest, SourceRecord
from schemas.points import Prompt, assemble_prompt
from schemas.prompt_kinds import PROMPT_SOURCES, PromptKind
from schemas.record import Record
from schemas.store.check_arrays import checked_array
from schemas.store.check_columns import check_checksums, check_column
from schemas.store.file_list import WrittenFiles
from schemas.store.location import normal_location, remote_errors, zarr_location
from schemas.store.rows import RowReader
from schemas.store.shards import absent_rows, file_key, rows_per_file


def open_store(path: str | Path) -> Store:
    """Open a finished store for reading.

    Args:
        path: The store's directory, or its URL in an object store (`s3://bucket/bcss.zarr`).

    Raises:
        StoreError: There is no store, it is unfinished, or its schema is another one.
    """
    store = Store(path)
    # Reading the manifest here makes a wrong path fail here, and not in a worker later.
    _ = store.manifest
    return store


class Store:
    """Tiles with their objects and prompts; `open_store` makes one.

    `len(store)` counts tiles, `store[i]` reads one whole, and iteration goes over all of them.

    Args:
        path: As for `open_store`.
        check_files: Whether a file of another length than was written is refused where it is read.
    """

    def __init__(self, path: str | Path, *, check_files: bool = True) -> None:
        self.path = normal_location(path)
        self.check_files = check_files

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "check_files": self.check_files}

    def __len__(self) -> int:
        return self.manifest.complete.tiles

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        manifest = self.manifest
        splits = self.column("tiles/split")
        counts = ", ".join(f"{split} {int((splits == split).sum())}" for split in SPLITS)
        names = ", ".join(info.name for info in manifest.classes)
        patients = len(set(self.column("tiles/patient")))
        return (
            f"Store({self.path!r}: {len(self)} tiles of {manifest.tile_size_px} px from {patients} patients "
            f"({counts}); {manifest.complete.objects} {manifest.object_kind} objects of {names})"
        )

    @cached_property
    def group(self) -> zarr.Group:
        """The Zarr group, read-only."""
        try:
            with remote_errors(self.path):
                return zarr.open_group(zarr_location(self.path), mode="r", zarr_format=3)
        except BcssError:
            raise
        except FileNotFoundError as error:
            raise StoreError(self.path, "no store is there", "make one with `bcss-prep build`") from error
        except OSError as error:
            raise unreadable(self.path, error) from error
        except Exception as error:
            # Damaged metadata makes zarr's parser fail in any way there is: AttributeError, RecursionError and more.
            raise StoreError(self.path, "is not a Zarr v3 group", "make it again with `bcss-prep build`") from error

    @cached_property
    def manifest(self) -> Manifest:
        """How the store was made; see `Manifest`.

        Raises:
            StoreError: It is unfinished, of another schema, or its manifest is damaged.
        """
        attributes = cast("dict[str, Any]", self.group.attrs.asdict()).get(ATTRIBUTES_KEY)
        if not isinstance(attributes, dict) or "complete" not in attributes:
            raise StoreError(self.path, "is not a finished store", "run `bcss-prep build` again")
        entries = cast("dict[str, Any]", attributes)
        if entries.get("schema_version") != SCHEMA_VERSION:
            found = entries.get("schema_version")
            raise StoreError(
                self.path,
                f"has schema version {found!r}, and this program reads {SCHEMA_VERSION}",
                "build it again with the installed `bcss-prep` and `--overwrite`",
            )
        try:
            return Manifest.model_validate(entries)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                self.path, f"has a damaged manifest ({field}: {first['msg']})", "build it again with `--overwrite`"
            ) from error

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array[Any]]:
        return {}

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return {}

    def array(self, path: str) -> zarr.Array[Any]:
        """Return a Zarr array by its path in the group, for example `images`."""
        if path not in self._arrays:
            where = f"{self.path}/{path}"
            try:
                with remote_errors(self.path):
                    array = self.group[path]
            except BcssError:
                raise
            except OSError as error:
                raise unreadable(where, error) from error
            except KeyError as error:
                raise StoreError(where, "is not there", "docs/python.md lists what is; or build again") from error
            except Exception as error:
                # As for the group's own metadata.
                raise StoreError(where, "is missing or damaged", "build the store again") from error
            if not isinstance(array, zarr.Array):
                raise StoreError(where, "is not an array", "build the store again")
            # What a build is to replace is known by its checksums, whatever became of its manifest.
            manifest = None if path.startswith("checksums/") else self.manifest
            self._arrays[path] = checked_array(where, array, path, manifest)
        return self._arrays[path]

    def column(self, path: str) -> NDArray[Any]:
        """Read a column whole, for example `objects/class_id`; it stays in memory, and is not to be written to."""
        if path not in self._columns:
            values = self._read_column(path)
            if path.startswith("checksums/"):
                check_checksums(f"{self.path}/{path}", path, values)
            else:
                check_column(f"{self.path}/{path}", path, values, self.manifest, self.column)
            # Shared by all who ask.
            values.flags.writeable = False
            self._columns[path] = values
        return self._columns[path]

    def _read_column(self, path: str) -> NDArray[Any]:
        array, where = self.array(path), f"{self.path}/{path}"
        try:
            with remote_errors(self.path):
                self._check_whole(path, array)
                return np.asarray(array[:])
        except BcssError:
            raise
        except OSError as error:
            raise unreadable(where, error) from error
        except Exception as error:
            # Zarr and numcodecs report a failed checksum, a short chunk or a wrong index in any way there is.
            raise StoreError(where, f"cannot be decoded ({error})", "`bcss-prep verify` lists all damage") from error

    def _check_whole(self, path: str, array: zarr.Array[Any]) -> None:
        """Refuse a column with rows that no file holds."""
        for number in range(-(-int(array.shape[0]) // rows_per_file(array))):
            if not path.startswith("checksums/"):
                self._check_file(f"{path}/{file_key(array, number)}")
            for row in absent_rows(array, number):
                raise StoreError(f"{self.path}/{path} row {row}", "is missing", "`bcss-prep verify` lists all damage")

    def _read_rows(self, path: str, rows: Sequence[int]) -> NDArray[Any]:
        if path not in self._readers:
            where = f"{self.path}/{path}"
            self._readers[path] = RowReader(self.array(path), where, lambda key: self._check_file(f"{path}/{key}"))
        return self._readers[path].read(rows)

    @cached_property
    def _check_file(self) -> Callable[[str], None]:
        files = WrittenFiles(self.group.store_path, self.path, self.column)
        return files.check if self.check_files else lambda _key: None

    @cached_property
    def _readers(self) -> dict[str, RowReader]:
        return {}

    def source(self, frame_id: str) -> SourceRecord:
        """The manifest's entry of a ROI that a tile is of: its files, size, resolution and palette."""
        return self._sources[frame_id]

    @cached_property
    def _sources(self) -> dict[str, SourceRecord]:
        return {source.frame_id: source for source in self.manifest.sources}

    def object_rows(self, index: int) -> slice:
        """Rows of a tile's objects in `segments`, `objects/*` and `prompts/*`."""
        offsets = self.column("tiles/object_offsets")
        return slice(int(offsets[index]), int(offsets[index + 1]))

    def __getitem__(self, index: int) -> Record:
        """Read one tile.

        Raises:
            IndexError: There is no such tile.
            StoreError: Its bytes are damaged.
        """
        index = self._checked(index)
        rows = self.object_rows(index)
        origin, scale, roi = (self.column(f"tiles/{name}")[index] for name in ("origin_xy", "scale_xy", "roi_size_xy"))
        return Record(
            index=index,
            frame_id=str(self.column("tiles/frame_id")[index]),
            patient=str(self.column("tiles/patient")[index]),
            institution=str(self.column("tiles/institution")[index]),
            split=str(self.column("tiles/split")[index]),
            origin_xy=(int(origin[0]), int(origin[1])),
            scale_xy=(float(scale[0]), float(scale[1])),
            roi_size_xy=(int(roi[0]), int(roi[1])),
            image=self.image(index),
            labels=self._read_rows("labels", [index])[0],
            ignore=self.ignore(index),
            segments=self.segment_stack(index),
            object_ids=self.column("objects/object_id")[rows].copy(),
            class_ids=self.column("objects/class_id")[rows].copy(),
            boxes_xyxy=self.column("objects/box_xyxy")[rows].copy(),
        )

    def image(self, index: int) -> NDArray[np.uint8]:
        """Read the image of one tile, uint8 (S, S, 3), RGB."""
        return self._read_rows("images", [self._checked(index)])[0]

    def ignore(self, index: int) -> NDArray[np.bool_]:
        """Read the don't-care pixels of one tile, bool (S, S)."""
        return unpack_mask(self._read_rows("ignore", [self._checked(index)])[0])

    def object_classes(self, index: int) -> dict[int, int]:
        """Class ids of one tile's objects as `{object_id: class_id}`, in the tile's order."""
        rows = self._rows_of(index, None)
        return {i: int(self.column("objects/class_id")[row]) for i, row in rows.items()}

    def segments(self, index: int, object_ids: Collection[int] | None = None) -> dict[int, NDArray[np.bool_]]:
        """Read the segments of one tile as `{object_id: bool (S, S)}`.

        Args:
            index: The tile.
            object_ids: Which objects; all of the tile unless given.
        """
        return dict(zip(self._rows_of(index, object_ids), self.segment_stack(index, object_ids), strict=True))

    def segment_stack(self, index: int, object_ids: Collection[int] | None = None) -> NDArray[np.bool_]:
        """Read the segments of one tile as bool (O, S, S), in the tile's order; see `segments`."""
        rows = list(self._rows_of(index, object_ids).values())
        size_bytes = len(rows) * self.manifest.tile_size_px**2
        if size_bytes > MAX_SEGMENT_BYTES:
            what = f"has segments of {size_bytes / 2**30:.0f} GiB"
            raise StoreError(f"{self.path} tile {index}", what, "give --min-area or --size")
        return unpack_mask(self._read_rows("segments", rows))

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
            object_ids: Which objects; all of the tile unless given.

        Returns:
            `{object_id: {"point_coords": float32 (K, 2) as x, y, "point_labels": int32 (K,)}}`, where a label is
            1 for a click, 0 for a negative click, 2 and 3 for a box's top-left and bottom-right corner.

        Raises:
            StoreError: The kind is unknown, or the store has no negative points.
        """
        if kind not in PROMPT_SOURCES:
            raise StoreError(self.path, f"has no prompt kind {kind!r}", f"choose one of {', '.join(PROMPT_SOURCES)}")
        if negatives and not self.manifest.negative_points:
            raise StoreError(self.path, "has no negative points", "build it with `--negative-points 8`")
        return {
            object_id: assemble_prompt(
                PROMPT_SOURCES[kind], lambda path, row=row: self.column(path)[row], negatives=negatives
            )
            for object_id, row in self._rows_of(index, object_ids).items()
        }

    def _rows_of(self, index: int, object_ids: Collection[int] | None) -> dict[int, int]:
        """Rows of a tile's objects by object id, in the tile's order."""
        rows = self.object_rows(self._checked(index))
        ids: list[int] = self.column("objects/object_id")[rows].tolist()
        return {i: row for row, i in enumerate(ids, rows.start) if object_ids is None or i in object_ids}

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} tiles, and {index} is not one of them")
        return int(index) % len(self)
