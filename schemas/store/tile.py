"""One tile of a store, read piece by piece.

Axes: O objects of the tile, S pixels per side. Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.bits import unpack_mask
from schemas.errors import StoreError
from schemas.limits import MAX_SEGMENT_BYTES
from schemas.points import Prompt, assemble_prompt
from schemas.prompt_kinds import PROMPT_SOURCES, PromptKind
from schemas.record import Record

if TYPE_CHECKING:
    from schemas.store.store import Store

NO_SEQUENCE = -1
"""The sequence and the frame number of a tile that belongs to no sequence."""


class Tile:
    """One tile; each of its arrays is read when it is first used. `Store.tile` makes one.

    Args:
        store: The store.
        index: The tile's index in the store, from 0.
    """

    def __init__(self, store: Store, index: int) -> None:
        self.store = store
        self.index = index

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The image, uint8 (S, S, 3), RGB."""
        return self.store.rows("images", [self.index])[0]

    @cached_property
    def labels(self) -> NDArray[np.uint8 | np.uint16]:
        """The values of the mask, uint8 or uint16 (S, S)."""
        return self.store.rows("labels", [self.index])[0]

    @cached_property
    def ignore(self) -> NDArray[np.bool_]:
        """Bool (S, S), true where a pixel counts neither as object nor as background."""
        return unpack_mask(self.store.rows("ignore", [self.index])[0])

    @cached_property
    def object_rows(self) -> slice:
        """The rows of the tile's objects in `segments`, `objects/*` and `prompts/*`."""
        offsets = self.store.column("tiles/object_offsets")
        return slice(int(offsets[self.index]), int(offsets[self.index + 1]))

    @cached_property
    def classes(self) -> dict[int, int]:
        """The class id of each object by its object id, in the order of the store."""
        classes = self._of_objects("objects/class_id").tolist()
        return dict(zip(self._row_of, classes, strict=True))

    @property
    def sequence(self) -> int:
        """The index of the tile's sequence in `Store.sequences`; -1 if the store has none."""
        return int(self.store.column("tiles/sequence")[self.index]) if self.store.sequences else NO_SEQUENCE

    @property
    def frame_number(self) -> int:
        """The number of the tile's frame in its sequence; -1 if the store has no sequences."""
        return int(self.store.column("tiles/frame_number")[self.index]) if self.store.sequences else NO_SEQUENCE

    @cached_property
    def tracks(self) -> dict[int, int]:
        """The track of each object by its object id, the same in all frames; empty if the store has no sequences."""
        if not self.store.sequences:
            return {}
        tracks = self._of_objects("objects/track").tolist()
        return dict(zip(self._row_of, tracks, strict=True))

    def segments(self, object_ids: Collection[int] | None = None) -> NDArray[np.bool_]:
        """Read segments.

        Args:
            object_ids: The selected objects; all of the tile unless given.

        Returns:
            bool (O, S, S), one segment for each selected object, in the order of the store.

        Raises:
            StoreError: The segments are damaged, or larger than `MAX_SEGMENT_BYTES` together.
        """
        rows = list(self._rows_of(object_ids).values())
        size_bytes = len(rows) * self.store.manifest.tile_size_px**2
        if size_bytes > MAX_SEGMENT_BYTES:
            what = f"has segments of {size_bytes >> 30} GiB, but at most {MAX_SEGMENT_BYTES >> 30} GiB can be read"
            raise StoreError(f"{self.store.path} tile {self.index}", what, "build with a larger --min-area")
        return unpack_mask(self.store.rows("segments", rows))

    def prompts(
        self, kind: PromptKind = "box", object_ids: Collection[int] | None = None, *, negatives: bool = False
    ) -> dict[int, Prompt]:
        """Return the prompts of the tile's objects; see `Store.prompts`."""
        store = self.store
        if kind not in PROMPT_SOURCES:
            raise StoreError(store.path, f"has no prompt kind {kind!r}", f"choose one of {', '.join(PROMPT_SOURCES)}")
        if negatives and not store.manifest.negative_points:
            raise StoreError(store.path, "has no negative points", "build it with `--negative-points 8`")
        source, values = PROMPT_SOURCES[kind], cache(self._of_objects)
        return {
            object_id: assemble_prompt(source, lambda path, row=row: values(path)[row], negatives=negatives)
            for object_id, row in self._places_of(object_ids).items()
        }

    def object_groups(self, max_bytes: int) -> list[list[int]]:
        """Divide the objects into groups whose segments can be read one group at a time.

        Args:
            max_bytes: Maximum size of the segments of a group; a group of one object may be larger.

        Returns:
            The object ids of each group, in the order of the store; one empty group for a tile without objects.
        """
        ids = list(self._row_of)
        count = max(max_bytes // self.store.manifest.tile_size_px**2, 1)
        return [ids[start : start + count] for start in range(0, max(len(ids), 1), count)]

    def record(self, object_ids: Collection[int] | None = None) -> Record:
        """Read the tile; its arrays belong to the caller.

        Args:
            object_ids: The objects to read; all of them unless given.
        """
        index, of_objects, of_tile = self.index, self._of_objects, self._of_tile
        places = list(self._places_of(object_ids).values())
        origin, scale, roi = (of_tile(f"tiles/{name}") for name in ("origin_xy", "scale_xy", "roi_size_xy"))
        return Record(
            index=index,
            frame_id=str(of_tile("tiles/frame_id")),
            patient=str(of_tile("tiles/patient")),
            institution=str(of_tile("tiles/institution")),
            split=str(of_tile("tiles/split")),
            origin_xy=(int(origin[0]), int(origin[1])),
            scale_xy=(float(scale[0]), float(scale[1])),
            roi_size_xy=(int(roi[0]), int(roi[1])),
            image=self.image,
            labels=self.labels,
            ignore=self.ignore,
            segments=self.segments(object_ids),
            object_ids=of_objects("objects/object_id")[places],
            class_ids=of_objects("objects/class_id")[places],
            boxes_xyxy=of_objects("objects/box_xyxy")[places],
            roi_components=of_objects("objects/roi_component")[places],
            touches_edge=of_objects("objects/touches_edge")[places],
        )

    @cached_property
    def _row_of(self) -> dict[int, int]:
        """The row of each object by its object id, in the order of the store."""
        rows = self.object_rows
        ids: list[int] = self._of_objects("objects/object_id").tolist()
        return {object_id: row for row, object_id in enumerate(ids, rows.start)}

    def _rows_of(self, object_ids: Collection[int] | None) -> dict[int, int]:
        if object_ids is None:
            return self._row_of
        return {object_id: row for object_id, row in self._row_of.items() if object_id in object_ids}

    def _places_of(self, object_ids: Collection[int] | None) -> dict[int, int]:
        """The place of each object among the objects of the tile, by its object id."""
        return {object_id: row - self.object_rows.start for object_id, row in self._rows_of(object_ids).items()}

    def _of_objects(self, path: str) -> NDArray[Any]:
        """The values of a column for the objects of the tile."""
        return self.store.column_rows(path, self.object_rows.start, self.object_rows.stop)

    def _of_tile(self, path: str) -> Any:
        """The value of a column for the tile."""
        return self.store.column_rows(path, self.index, self.index + 1)[0]
