"""Write what one ROI adds to a store into a folder of its own, from which shards are joined later.

A shard holds the tiles of several ROIs, and two writers of one shard lose rows. So a ROI's pixels are encoded here,
chunk by chunk, with the store's own codecs, and `prep.shards` only concatenates them: each byte is compressed once,
and each shard has one writer.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numcodecs.blosc
import numpy as np
import zarr

from prep.config import BuildConfig
from prep.discover import RoiSource
from prep.roi import DecodedRoi, PreparedTile, decode_roi, object_row, prepare_tiles, tile_row
from prep.shards import create_array
from schemas.bits import pack_mask
from schemas.layout import PIXEL_ARRAYS, ArraySpec
from schemas.manifest import SourceRecord

COLUMNS_FILE = "columns.npz"


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


@dataclass(frozen=True)
class StagedRoi:
    """One ROI, written.

    Attributes:
        directory: Where it was written.
        source: Its entry in the manifest.
        class_codes: The wanted pixel values that it holds.
    """

    directory: Path
    source: SourceRecord
    class_codes: frozenset[int]


def stage_roi(task: StageTask) -> StagedRoi:
    """Prepare one ROI and write its chunks and columns.

    Raises:
        SourceError: One of its files cannot be used.
    """
    # Threaded Blosc writes its blocks in the order in which they finish, and arrays must be equal byte by byte.
    numcodecs.blosc.use_threads = False
    pixels = decode_roi(task.roi, task.config)
    rows: dict[str, list[object]] = defaultdict(list)
    group = zarr.create_group(task.directory, zarr_format=3)
    arrays = {spec.path: create_array(group, spec, rows=0) for spec in task.specs if spec.path in PIXEL_ARRAYS}
    objects = 0
    for number, prepared in enumerate(prepare_tiles(task.roi, pixels, task.config)):
        for path, values in _pixel_rows(prepared, arrays["labels"].dtype).items():
            if len(values):
                arrays[path].append(values)
        _add_row(rows, tile_row(task.roi, task.split, pixels, prepared.tile))
        rows["object_counts"].append(len(prepared.objects))
        for item in prepared.objects:
            _add_row(rows, object_row(number, item))
        objects += len(prepared.objects)
    _save_columns(task, rows)
    record = _source_record(task, pixels, tiles=len(rows["object_counts"]), objects=objects)
    return StagedRoi(task.directory, record, pixels.wanted)


def load_columns(directory: Path) -> dict[str, np.ndarray]:
    """Read the columns that `stage_roi` wrote."""
    with np.load(directory / COLUMNS_FILE, allow_pickle=False) as archive:
        return {path: archive[path] for path in archive.files}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _save_columns(task: StageTask, rows: dict[str, list[object]]) -> None:
    columns = {
        spec.path: np.array(rows[spec.path], spec.dtype).reshape(-1, *spec.row_shape)
        for spec in task.specs
        if spec.path not in PIXEL_ARRAYS and spec.axis != "tile_bound"
    }
    columns["object_counts"] = np.array(rows["object_counts"], np.int64)
    # savez takes any mapping by keyword, and paths with a slash are allowed as member names.
    np.savez(task.directory / COLUMNS_FILE, allow_pickle=False, **columns)


def _source_record(task: StageTask, pixels: DecodedRoi, tiles: int, objects: int) -> SourceRecord:
    height, width = pixels.labels.shape
    return SourceRecord(
        frame_id=task.roi.frame_id,
        image=task.roi.image_path.relative_to(task.source_dir).as_posix(),
        mask=task.roi.mask_path.relative_to(task.source_dir).as_posix(),
        image_sha256=sha256_of(task.roi.image_path),
        mask_sha256=sha256_of(task.roi.mask_path),
        width_px=width,
        height_px=height,
        tiles=tiles,
        objects=objects,
    )
