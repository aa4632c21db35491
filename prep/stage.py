"""Write what one ROI adds to a store into a folder of its own, from which shards are joined later.

A shard holds the tiles of several ROIs, and two writers of one shard lose rows. So a ROI's pixels are encoded here,
chunk by chunk, with the store's own codecs, and `prep.shards` only concatenates them: each byte is compressed once,
and each shard has one writer.
"""

from __future__ import annotations

import errno
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numcodecs.blosc
import numpy as np
import zarr
from pydantic import BaseModel, ConfigDict

from prep.checksums import sha256_of
from prep.config import BuildConfig
from prep.discover import RoiSource
from prep.roi import DecodedRoi, PreparedTile, decode_roi, object_row, prepare_tiles, tile_row
from prep.shards import create_array
from schemas.bits import pack_mask
from schemas.errors import SourceError
from schemas.layout import PIXEL_ARRAYS, ArraySpec
from schemas.manifest import SourceRecord

COLUMNS_FILE = "columns.npz"
RECORD_FILE = "staged.json"

TILES_AT_ONCE = 8
"""Tiles that are encoded together: each call costs some milliseconds, and these are held in memory."""


@dataclass(frozen=True)
class StageTask:
    """One ROI to prepare; sent to a worker process.

    Attributes:
        roi: Its files.
        split: Its patient's split.
        source_dir: The data set's folder, to which recorded paths are relative.
        directory: Where to write.
        config: The build's configuration.
        specs: The store's arrays.
    """

    roi: RoiSource
    split: str
    source_dir: Path
    directory: Path
    config: BuildConfig
    specs: tuple[ArraySpec, ...]


class StagedRoi(BaseModel):
    """One ROI, written; kept in its folder as `staged.json`.

    Attributes:
        source: Its entry in the manifest.
        class_codes: The wanted codes that it holds.
        files: SHA-256 of each file of its folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: SourceRecord
    class_codes: tuple[int, ...]
    files: dict[str, str]


def stage_roi(task: StageTask) -> StagedRoi:
    """Prepare one ROI and write its chunks and columns; one that is there and whole stays.

    Raises:
        SourceError: One of its files cannot be used, or has changed since it was prepared.
    """
    digests = (sha256_of(task.roi.image_path), sha256_of(task.roi.mask_path))
    there = _read_staged(task.directory)
    if there is not None:
        if (there.source.image_sha256, there.source.mask_sha256) != digests:
            raise SourceError(
                task.roi.mask_path, "or its image has changed since the build began", "give --overwrite to start again"
            )
        return there
    # Two workers may hold the same task after a cluster has lost sight of one: each writes a folder of its own.
    directory = task.directory.with_name(f"{task.directory.name}.{uuid4().hex}")
    directory.mkdir(parents=True)
    try:
        staged = _stage(task, directory, digests)
        (directory / RECORD_FILE).write_text(staged.model_dump_json(), encoding="utf-8")
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(task.directory, ignore_errors=True)
    try:
        directory.rename(task.directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # The other worker was first, with the same bytes.
        shutil.rmtree(directory)
    return staged


def _stage(task: StageTask, directory: Path, digests: tuple[str, str]) -> StagedRoi:
    # Threaded Blosc writes its blocks in the order in which they finish, and arrays must be equal byte by byte.
    numcodecs.blosc.use_threads = False
    pixels = decode_roi(task.roi, task.config)
    rows: dict[str, list[object]] = defaultdict(list)
    group = zarr.create_group(directory, zarr_format=3)
    arrays = {
        spec.path: create_array(group, spec, rows=0, codec=task.config.codec)
        for spec in task.specs
        if spec.path in PIXEL_ARRAYS
    }
    objects = 0
    waiting: dict[str, list[np.ndarray]] = defaultdict(list)
    for number, prepared in enumerate(prepare_tiles(task.roi, pixels, task.config)):
        for path, values in _pixel_rows(prepared, arrays["labels"].dtype).items():
            if len(values):
                waiting[path].append(values)
        if (number + 1) % TILES_AT_ONCE == 0:
            _append(arrays, waiting)
        _add_row(rows, tile_row(task.roi, task.split, pixels, prepared.tile))
        rows["object_counts"].append(len(prepared.objects))
        for item in prepared.objects:
            _add_row(rows, object_row(number, item))
        objects += len(prepared.objects)
    _append(arrays, waiting)
    _save_columns(directory, task.specs, rows)
    record = _source_record(task, pixels, digests, tiles=len(rows["object_counts"]), objects=objects)
    return StagedRoi(source=record, class_codes=tuple(sorted(pixels.wanted)), files=_file_digests(directory))


def _append(arrays: dict[str, zarr.Array[Any]], waiting: dict[str, list[np.ndarray]]) -> None:
    for path, rows in waiting.items():
        arrays[path].append(np.concatenate(rows))
    waiting.clear()


def _read_staged(directory: Path) -> StagedRoi | None:
    """The record of a folder that is whole, else None."""
    try:
        staged = StagedRoi.model_validate_json((directory / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return staged if _file_digests(directory) == staged.files else None


def _file_digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): sha256_of(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != RECORD_FILE
    }


def load_columns(directory: Path) -> dict[str, np.ndarray]:
    """Read the columns that `stage_roi` wrote."""
    with np.load(directory / COLUMNS_FILE, allow_pickle=False) as archive:
        return {path: archive[path] for path in archive.files}


def _pixel_rows(prepared: PreparedTile, label_dtype: np.dtype[np.generic]) -> dict[str, np.ndarray]:
    masks = [item.segment.mask for item in prepared.objects]
    return {
        "images": prepared.tile.image[None],
        "labels": prepared.tile.labels[None].astype(label_dtype),
        "ignore": pack_mask(prepared.ignore)[None],
        "segments": np.stack([pack_mask(mask) for mask in masks]) if masks else np.zeros(0, np.uint8),
    }


def _add_row(rows: dict[str, list[object]], row: dict[str, object]) -> None:
    for path, value in row.items():
        rows[path].append(value)


def _save_columns(directory: Path, specs: tuple[ArraySpec, ...], rows: dict[str, list[object]]) -> None:
    columns = {
        spec.path: np.array(rows[spec.path], spec.dtype).reshape(-1, *spec.row_shape)
        for spec in specs
        if spec.path not in PIXEL_ARRAYS and spec.axis != "tile_bound"
    }
    columns["object_counts"] = np.array(rows["object_counts"], np.int64)
    # savez takes any mapping by keyword, and paths with a slash are allowed as member names.
    np.savez(directory / COLUMNS_FILE, allow_pickle=False, **columns)


def _source_record(
    task: StageTask, pixels: DecodedRoi, digests: tuple[str, str], tiles: int, objects: int
) -> SourceRecord:
    width, height = pixels.size_xy
    return SourceRecord(
        frame_id=task.roi.frame_id,
        image=task.roi.image_path.relative_to(task.source_dir).as_posix(),
        mask=task.roi.mask_path.relative_to(task.source_dir).as_posix(),
        image_sha256=digests[0],
        mask_sha256=digests[1],
        width_px=width,
        height_px=height,
        tiles=tiles,
        objects=objects,
    )
