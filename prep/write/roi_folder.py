"""Write the encoded chunks and the columns of one ROI to its own folder; later, chunks are joined into shards.

A shard holds the tiles of several ROIs, and two writers of one shard would lose rows. So the pixels of a ROI are
encoded here, chunk by chunk, with the codecs of the store, and `prep.write.shards` only joins the chunks: each byte is
compressed once, and each shard has one writer.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from prep.config import BuildConfig
from prep.derive.decoded_roi import DecodedRoi, decode_roi
from prep.derive.prepared_tile import PreparedTile, object_row, prepare_tiles, tile_row
from prep.files import crc32c_of, sha256_of
from prep.source.discover import RoiSource
from prep.write.chunk_file import ChunkFile
from schemas.bits import pack_mask
from schemas.command.stage_timer import timed
from schemas.errors import SourceError
from schemas.layout import PIXEL_ARRAYS, ArraySpec
from schemas.limits import MAX_SEGMENT_BYTES
from schemas.manifest import SourceRecord
from schemas.picture.decode import image_header
from schemas.store.codecs import array_codec, use_one_thread

COLUMNS_FILE = "columns.npz"
RECORD_FILE = "staged.json"


@dataclass(frozen=True)
class RoiTask:
    """One ROI to prepare; sent to a worker process.

    Attributes:
        roi: Its files.
        split: The split of its patient.
        source_dir: The data set's folder; the manifest names files relative to it.
        directory: The folder to write. Its parent exists until the build ends.
        config: The settings of the build.
        specs: The arrays of the store.
        may_change: Whether to prepare the ROI again if its files have changed since it was prepared; otherwise that is
            an error.
    """

    roi: RoiSource
    split: str
    source_dir: Path
    directory: Path
    config: BuildConfig
    specs: tuple[ArraySpec, ...]
    may_change: bool = False

    def __str__(self) -> str:
        return f"ROI {self.roi.frame_id}"


@dataclass(frozen=True)
class RoiFolder:
    """A prepared ROI.

    Attributes:
        directory: The folder with its encoded chunks and its columns.
        source: Its entry in the manifest.
        rims: Number of pixels of each code that looks like a blend of two others.
        recolored_px: Number of pixels with a color that belongs to no class.
        class_of_track: The class of each object of a frame, by its pixel value; empty for a ROI.
    """

    directory: Path
    source: SourceRecord
    rims: dict[int, int]
    recolored_px: int = 0
    class_of_track: dict[int, int] = field(default_factory=dict[int, int])


class RoiRecord(BaseModel):
    """The file `staged.json` of a ROI's folder; a folder without it is unfinished.

    Attributes:
        source: The ROI's entry in the manifest.
        files: CRC-32C of each other file of the folder, by its name.
        rims: Number of pixels of each code that looks like a blend of two others.
        recolored_px: Number of pixels with a color that no class has.
        class_of_track: The class of each object of a frame, by its pixel value; empty for a ROI.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: SourceRecord
    files: dict[str, str]
    rims: dict[int, int] = Field(default_factory=dict[int, int])
    recolored_px: int = 0
    class_of_track: dict[int, int] = Field(default_factory=dict[int, int])


def write_roi_folder(task: RoiTask) -> RoiFolder:
    """Prepare one ROI and write its chunks and columns; a complete folder from an earlier run is used as it is.

    Raises:
        SourceError: One of its files cannot be used, or has changed since the ROI was prepared.
    """
    with timed("hash sources"):
        digests = source_digests(task.roi)
    record = _complete_record(task.directory)
    if record is None or recorded_digests(record.source) != digests:
        if record is not None and not task.may_change:
            changed = "or its image has changed" if task.roi.mask_path else "has changed"
            what = f"{changed} since the build began"
            raise SourceError(task.roi.labels_path, what, "give --overwrite to prepare it again")
        record = _write_beside(task, digests)
    return RoiFolder(task.directory, record.source, record.rims, record.recolored_px, record.class_of_track)


def source_digests(roi: RoiSource) -> tuple[str, ...]:
    """SHA-256 of each file of a ROI, in hexadecimal."""
    return tuple(sha256_of(path) for path in roi.paths)


def recorded_digests(source: SourceRecord) -> tuple[str, ...]:
    """The digests of a ROI's files when it was prepared, in the order of `source_digests`."""
    digests = (source.image_sha256, source.mask_sha256, source.class_mask_sha256)
    return tuple(digest for digest in digests if digest is not None)


def _write_beside(task: RoiTask, digests: tuple[str, ...]) -> RoiRecord:
    """Write a new folder and rename it into place."""
    # A cluster that loses contact with a worker gives its task to another worker, so each writes its own folder.
    # The parent is not created, because a worker that outlives the build must not create the build's folder again.
    directory = task.directory.with_name(f"{task.directory.name}.{uuid4().hex}")
    directory.mkdir()
    try:
        record = _write_files(task, directory, digests)
        (directory / RECORD_FILE).write_text(record.model_dump_json(), encoding="utf-8")
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if _complete_record(task.directory) == record:
        # Another worker was first and wrote the same bytes, and its folder may already be in use.
        shutil.rmtree(directory)
        return record
    shutil.rmtree(task.directory, ignore_errors=True)
    try:
        directory.rename(task.directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another worker was first and wrote the same bytes.
        shutil.rmtree(directory)
    return record


def _write_files(task: RoiTask, directory: Path, digests: tuple[str, ...]) -> RoiRecord:
    # Use one core for each ROI: builds scale with processes, and threads of libraries would compete for the same cores.
    cv2.setNumThreads(1)
    use_one_thread()
    with timed("decode"):
        pixels = decode_roi(task.roi, task.config)
    rows: dict[str, list[object]] = defaultdict(list)
    object_counts: list[int] = []
    ignored_px = 0
    with ExitStack() as stack:
        files = {
            spec.path: stack.enter_context(
                ChunkFile(chunk_file(directory, spec.path), array_codec(spec.path, task.config.codec))
            )
            for spec in task.specs
            if spec.path in PIXEL_ARRAYS
        }
        (label_dtype,) = (spec.dtype for spec in task.specs if spec.path == "labels")
        for number, prepared in enumerate(prepare_tiles(task.roi, pixels, task.config)):
            _check_readable(task, prepared)
            with timed("encode and write"):
                _append_pixels(files, prepared, label_dtype)
            _add_row(rows, tile_row(task.roi, task.split, pixels, prepared.tile))
            for item in prepared.objects:
                _add_row(rows, object_row(number, item))
            object_counts.append(len(prepared.objects))
            ignored_px += int(np.count_nonzero(prepared.ignore))
    extra = {f"sizes/{path}": np.array(file.sizes, np.int64) for path, file in files.items()}
    extra["object_counts"] = np.array(object_counts, np.int64)
    with timed("columns"):
        _save_columns(directory, task.specs, rows, extra)
    counts = {"tiles": len(object_counts), "objects": sum(object_counts), "ignored_px": ignored_px}
    return RoiRecord(
        source=_source_record(task, pixels, digests, counts),
        files=_file_checksums(directory),
        rims=pixels.rims,
        recolored_px=pixels.recolored_px,
        class_of_track=pixels.instances.class_of if pixels.instances and task.roi.sequence else {},
    )


def _append_pixels(files: dict[str, ChunkFile], prepared: PreparedTile, label_dtype: str) -> None:
    files["images"].append(prepared.tile.image)
    files["labels"].append(prepared.tile.labels.astype(label_dtype))
    files["ignore"].append(pack_mask(prepared.ignore))
    for item in prepared.objects:
        files["segments"].append(item.segment.packed)


def _check_readable(task: RoiTask, prepared: PreparedTile) -> None:
    """Refuse a tile whose segments exceed the memory that a reader allocates."""
    if len(prepared.objects) * prepared.ignore.size > MAX_SEGMENT_BYTES:
        x, y = prepared.tile.origin_xy
        what = f"has {len(prepared.objects)} objects in the tile at {x}, {y}, more than can be read at once"
        raise SourceError(task.roi.labels_path, what, "give a larger --min-area or a smaller --size")


def chunk_file(directory: Path, array: str) -> Path:
    """The file of an array's encoded chunks in a ROI's folder."""
    return directory / f"{array}.chunks"


def _complete_record(directory: Path) -> RoiRecord | None:
    """Return the record of a complete folder; None if the folder is absent, unfinished or damaged."""
    try:
        record = RoiRecord.model_validate_json((directory / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if _file_checksums(directory) == record.files else None


def _file_checksums(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): crc32c_of(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != RECORD_FILE
    }


def load_columns(directory: Path) -> dict[str, np.ndarray]:
    """Read the columns that `write_roi_folder` wrote, by their path in the store.

    `object_counts` is the number of objects of each tile, and `sizes/<array>` the length in bytes of each chunk.
    """
    with np.load(directory / COLUMNS_FILE, allow_pickle=False) as archive:
        return {path: archive[path] for path in archive.files}


def _add_row(rows: dict[str, list[object]], row: dict[str, object]) -> None:
    for path, value in row.items():
        rows[path].append(value)


def _save_columns(
    directory: Path, specs: tuple[ArraySpec, ...], rows: dict[str, list[object]], extra: dict[str, np.ndarray]
) -> None:
    columns = {
        spec.path: np.array(rows[spec.path], spec.dtype).reshape(-1, *spec.row_shape)
        for spec in specs
        if spec.path not in PIXEL_ARRAYS and spec.axis != "tile_bound"
    }
    # `savez` accepts any mapping as keywords, and a member's name may contain a slash. `allow_pickle` is left out,
    # because NumPy before 2.1 would save it as one more array. No column holds Python objects.
    members: dict[str, Any] = columns | extra
    np.savez(directory / COLUMNS_FILE, **members)


def _source_record(task: RoiTask, pixels: DecodedRoi, digests: tuple[str, ...], counts: dict[str, int]) -> SourceRecord:
    width, height = pixels.size_xy
    # The files that a table of cases names may lie beside or above it.
    roi = task.roi
    names = [Path(os.path.relpath(path, task.source_dir)).as_posix() for path in roi.paths]
    return SourceRecord(
        frame_id=roi.frame_id,
        image=names[0],
        mask=names[1] if len(names) > 1 else None,
        class_px=pixels.class_px,
        class_mask=names[2] if len(names) > 2 else None,
        image_sha256=digests[0],
        mask_sha256=digests[1] if len(digests) > 1 else None,
        class_mask_sha256=digests[2] if len(digests) > 2 else None,
        width_px=width,
        height_px=height,
        mpp_um=roi.mpp_um,
        palette=image_header(roi.mask_path).palette_rgb.hex() if roi.mask_path else "",
        sequence=roi.sequence or None,
        frame_number=roi.frame_number if roi.sequence else None,
        **counts,
    )
