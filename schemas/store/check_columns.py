"""Check the values of a column, because they are used to index arrays, name files and allocate memory.

Axes: N tiles, M objects. Coordinates are x, y.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StoreError
from schemas.limits import MAX_ROI_PX
from schemas.manifest import SPLITS, Manifest
from schemas.prompt_kinds import POINT_SETS, PointLabel
from schemas.store.reading import LIST_DAMAGE

Column = Callable[[str], NDArray[Any]]
"""Returns a column by its path."""

Check = Callable[[NDArray[Any], Manifest, Column], bool]
"""Whether the values of a column are those that a build could have written."""

WHOLE_COLUMNS = frozenset(
    {
        "tiles/object_offsets",
        "tiles/sequence",
        "tiles/frame_number",
        "objects/tile_index",
        "objects/object_id",
        "objects/track",
    }
)
"""The columns whose checks compare rows with other rows. Every other column can be checked a few rows at a time."""

_FILE_KEY = re.compile(r"(?:[a-z]\w*/){1,2}(?:zarr\.json|c(?:/\d{1,12})+)", re.ASCII)
"""Path of a file of an array: its metadata, or a chunk or shard."""


def check_column(where: str, path: str, values: NDArray[Any], manifest: Manifest, column: Column) -> None:
    """Check that a build could have written the values of a column.

    Args:
        where: The column, for messages.
        path: Its path in the store.
        values: Its values.
        manifest: The manifest of the store.
        column: Returns another column by its path.

    Raises:
        StoreError: No build writes these values.
    """
    is_sound = _CHECKS.get(path) or _point_check(path)
    if is_sound is not None and not is_sound(values, manifest, column):
        raise _foreign(where)


def check_checksums(where: str, path: str, values: NDArray[Any]) -> None:
    """Check the values of a column of checksums, which is read without a manifest.

    Args:
        where: The column, for messages.
        path: Its path in the store.
        values: Its values.

    Raises:
        StoreError: A key is not the path of an array's file, or a length is below zero.
    """
    if path == "checksums/key" and not all(_FILE_KEY.fullmatch(str(key)) for key in values.tolist()):
        raise _foreign(where)
    if path == "checksums/size_bytes" and (values < 0).any():
        raise _foreign(where)


def _foreign(where: str) -> StoreError:
    return StoreError(where, "holds values that no build writes", LIST_DAMAGE)


def _are_offsets(values: NDArray[Any], manifest: Manifest, _column: Column) -> bool:
    return values[0] == 0 and values[-1] == manifest.complete.objects and bool((np.diff(values) >= 0).all())


def _are_frames(values: NDArray[Any], manifest: Manifest, _column: Column) -> bool:
    return _distinct(values) <= {source.frame_id for source in manifest.sources}


def _are_splits(values: NDArray[Any], _manifest: Manifest, _column: Column) -> bool:
    return _distinct(values) <= set(SPLITS)


def _distinct(names: NDArray[Any]) -> set[str]:
    """Return the different names of a column, without a list of all of them: that would take gigabytes."""
    step = 1 << 16
    return {name for start in range(0, len(names), step) for name in set(names[start : start + step].tolist())}


def _are_scales(values: NDArray[Any], manifest: Manifest, _column: Column) -> bool:
    """Whether a tile covers no more source pixels than a ROI may have, since tiles are drawn back into their ROI."""
    if not bool(((values > 1e-6) & (values < 1e6)).all()):
        return False
    return bool(((manifest.tile_size_px / values).prod(axis=1) <= MAX_ROI_PX).all())


def _are_sequences(values: NDArray[Any], manifest: Manifest, _column: Column) -> bool:
    """Whether the tiles of each sequence are together, in the order of the manifest."""
    steps = np.diff(values.astype(np.int64))
    return values[0] == 0 and values[-1] == len(manifest.sequences) - 1 and bool(((steps == 0) | (steps == 1)).all())


def _are_frame_numbers(values: NDArray[Any], manifest: Manifest, column: Column) -> bool:
    """Whether frame numbers ascend in each sequence, and each frame has the windows of the first frame."""
    windows = np.concatenate(
        [column(f"tiles/{name}").astype(np.float64) for name in ("origin_xy", "scale_xy", "roi_size_xy")], axis=1
    )
    bounds = np.searchsorted(column("tiles/sequence"), np.arange(len(manifest.sequences) + 1))
    for start, end in pairwise(bounds.tolist()):
        numbers = values[start:end].astype(np.int64)
        in_frame = int(np.count_nonzero(numbers == numbers[0]))
        if numbers[0] < 0 or (end - start) % in_frame:
            return False
        of_frames = numbers.reshape(-1, in_frame)
        if (of_frames != of_frames[:, :1]).any() or (np.diff(of_frames[:, 0]) <= 0).any():
            return False
        places = windows[start:end].reshape(len(of_frames), in_frame, -1)
        if (places != places[:1]).any():
            return False
    return True


def _are_tracks(values: NDArray[Any], _manifest: Manifest, column: Column) -> bool:
    return bool((values > 0).all()) and np.array_equal(values, column("objects/object_id"))


def _are_origins(values: NDArray[Any], _manifest: Manifest, column: Column) -> bool:
    return bool(((values >= 0) & (values < column("tiles/roi_size_xy"))).all())


def _are_roi_sizes(values: NDArray[Any], manifest: Manifest, column: Column) -> bool:
    sizes = {source.frame_id: (source.width_px, source.height_px) for source in manifest.sources}
    return np.array_equal(values, [sizes[frame_id] for frame_id in column("tiles/frame_id").tolist()])


def _are_tiles(values: NDArray[Any], manifest: Manifest, column: Column) -> bool:
    objects_of_tiles = np.diff(column("tiles/object_offsets"))
    return np.array_equal(values, np.repeat(np.arange(manifest.complete.tiles), objects_of_tiles))


def _are_object_ids(values: NDArray[Any], _manifest: Manifest, column: Column) -> bool:
    """Whether ids ascend in each tile, and so are unique there."""
    ascends = np.ones(len(values), bool)
    ascends[1:] = values[1:] > values[:-1]
    # The first object of a tile follows one of another tile. An empty tile at the end has no object.
    firsts = column("tiles/object_offsets")[:-1]
    ascends[firsts[firsts < len(values)]] = True
    return bool((values >= 0).all() and ascends.all())


def _are_classes(values: NDArray[Any], manifest: Manifest, _column: Column) -> bool:
    return bool(np.isin(values, [info.code for info in manifest.classes]).all())


def _are_areas(values: NDArray[Any], manifest: Manifest, _column: Column) -> bool:
    return bool(((values > 0) & (values <= manifest.tile_size_px**2)).all())


def _are_boxes(values: NDArray[Any], manifest: Manifest, _column: Column) -> bool:
    first, last = values[:, :2], values[:, 2:]
    return bool(((first >= 0) & (first <= last) & (last < manifest.tile_size_px)).all())


def _are_coords(values: NDArray[Any], manifest: Manifest, _column: Column) -> bool:
    # A comparison with NaN is false, so NaN fails the check.
    return bool(((values >= 0) & (values <= manifest.tile_size_px - 1)).all())


def _point_check(path: str) -> Check | None:
    """Return the check of a column of points; None if the path is not such a column."""
    for points in POINT_SETS.values():
        if path == points.coords_path:
            return _are_coords
        if path == points.labels_path:
            known = (PointLabel.PADDING, points.label)
            return lambda values, _manifest, _column: bool(np.isin(values, known).all())
    return None


_CHECKS: dict[str, Check] = {
    "tiles/object_offsets": _are_offsets,
    "tiles/frame_id": _are_frames,
    "tiles/split": _are_splits,
    "tiles/scale_xy": _are_scales,
    "tiles/origin_xy": _are_origins,
    "tiles/roi_size_xy": _are_roi_sizes,
    "tiles/sequence": _are_sequences,
    "tiles/frame_number": _are_frame_numbers,
    "objects/tile_index": _are_tiles,
    "objects/object_id": _are_object_ids,
    "objects/class_id": _are_classes,
    "objects/area_px": _are_areas,
    "objects/box_xyxy": _are_boxes,
    "objects/track": _are_tracks,
}
