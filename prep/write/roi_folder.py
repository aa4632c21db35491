"""Write what one ROI adds to a store into a folder of its own, from which shards are joined later.

A shard holds the tiles of several ROIs, and two writers of one shard lose rows. So a ROI's pixels are encoded here,
chunk by chunk, with the store's own codecs, and `prep.write.shards` only concatenates them: each byte is compressed
once, and each shard has one writer.
"""

from __future__ import annotations

import errno
import shutil
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict

from prep.config import BuildConfig
from prep.derive.roi import DecodedRoi, PreparedTile, decode_roi, object_row, prepare_tiles, tile_row
from prep.files import sha256_of
from prep.source.decode import image_header
from prep.source.discover import RoiSource
from prep.write.chunk_file import ChunkFile
from schemas.bits import pack_mask
from schemas.command.stage_timer import timed
from schemas.errors import SourceError
from schemas.layout import PIXEL_ARRAYS, ArraySpec
from schemas.limits import MAX_SEGMENT_BYTES
from schemas.manifest import SourceRecord
from schemas.store.codecs import array_codec, use_one_thread

COLUMNS_FILE = "columns.npz"
RECORD_FILE = "staged.json"


@dataclass(frozen=True)
class StageTask:
    """One ROI to prepare; sent to a worker process.

    Attributes:
        roi: Its files.
        split: Its patient's split.
        source_dir: The data set's folder, to which recorded paths are relative.
        directory: Where to write; the folder that it is in is there until the build ends.
        config: The build's configuration.
        specs: The store's arrays.
        may_change: Whether a ROI that has changed since it was prepared is prepared again; else that is an error.
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


class StagedRoi(BaseModel):
    """One ROI, written; kept in its folder as `staged.json`.

    Attributes:
        source: Its entry in the manifest.
        files: SHA-256 of each file of its folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: SourceRecord
    files: dict[str, str]


def stage_roi(task: StageTask) -> StagedRoi:
    """Prepare one ROI and write its chunks and columns; one that is there and whole stays.

    Raises:
        SourceError: One of its files cannot be used, or has changed since it was prepared.
    """
    with timed("hash sources"):
        digests = (sha256_of(task.roi.image_path), sha256_of(task.roi.mask_path))
    there = _read_staged(task.directory)
    if there is not None and (there.source.image_sha256, there.source.mask_sha256) == digests:
        return there
    if there is not None and not task.may_change:
        raise SourceError(
            task.roi.mask_path, "or its image has changed since the build began", "give --overwrite to prepare it again"
        )
    # Two workers may hold the same task after a cluster has lost sight of one: each writes a folder of its own. And a
    # worker may outlive the build: it is not to make the build's folder again.
    directory = task.directory.with_name(f"{task.directory.name}.{uuid4().hex}")
    directory.mkdir()
    try:
        staged = _stage(task, directory, digests)
        (directory / RECORD_FILE).write_text(staged.model_dump_json(), encoding="utf-8")
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if _read_staged(task.directory) == staged:
        # Somebody may be reading it by now.
        shutil.rmtree(directory)
        return staged
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
    # A ROI has one core: builds scale by processes, and threads of each library would fight for the same cores.
    cv2.setNumThreads(1)
    use_one_thread()
    with timed("decode"):
        pixels = decode_roi(task.roi, task.config)
    rows: dict[str, list[object]] = defaultdict(list)
    objects = ignored_px = 0
    with ExitStack() as stack:
        files = {
            spec.path: stack.enter_context(
                ChunkFile(chunk_file(directory, spec.path), array_codec(spec.path, task.config.codec))
            )
            for spec in task.specs
            if spec.path in PIXEL_ARRAYS
        }
        dtypes = {spec.path: spec.dtype for spec in task.specs}
        for number, prepared in enumerate(prepare_tiles(task.roi, pixels, task.config)):
            _check_readable(task, prepared)
            with timed("encode and write"):
                files["images"].append(prepared.tile.image)
                files["labels"].append(prepared.tile.labels.astype(dtypes["labels"]))
                files["ignore"].append(pack_mask(prepared.ignore))
                for item in prepared.objects:
                    files["segments"].append(pack_mask(item.segment.mask))
            _add_row(rows, tile_row(task.roi, task.split, pixels, prepared.tile))
            rows["object_counts"].append(len(prepared.objects))
            for item in prepared.objects:
                _add_row(rows, object_row(number, item))
            objects += len(prepared.objects)
            ignored_px += int(np.count_nonzero(prepared.ignore))
    sizes = {f"sizes/{path}": np.array(file.sizes, np.int64) for path, file in files.items()}
    with timed("columns"):
        _save_columns(directory, task.specs, rows, sizes)
    counts = {"tiles": len(rows["object_counts"]), "objects": objects, "ignored_px": ignored_px}
    record = _source_record(task, pixels, digests, counts)
    return StagedRoi(source=record, files=_file_digests(directory))


def _check_readable(task: StageTask, prepared: PreparedTile) -> None:
    """Refuse a tile whose segments a reader takes for damage."""
    if len(prepared.objects) * prepared.ignore.size > MAX_SEGMENT_BYTES:
        x, y = prepared.tile.origin_xy
        what = f"has {len(prepared.objects)} objects in the tile at {x}, {y}, more than can be read at once"
        raise SourceError(task.roi.mask_path, what, "give a larger --min-area or a smaller --size")


def chunk_file(directory: Path, array: str) -> Path:
    """Where the encoded chunks of an array lie in a ROI's folder."""
    return directory / f"{array}.chunks"


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


def _add_row(rows: dict[str, list[object]], row: dict[str, object]) -> None:
    for path, value in row.items():
        rows[path].append(value)


def _save_columns(
    directory: Path, specs: tuple[ArraySpec, ...], rows: dict[str, list[object]], sizes: dict[str, np.ndarray]
) -> None:
    columns = {
        spec.path: np.array(rows[spec.path], spec.dtype).reshape(-1, *spec.row_shape)
        for spec in specs
        if spec.path not in PIXEL_ARRAYS and spec.axis != "tile_bound"
    }
    columns["object_counts"] = np.array(rows["object_counts"], np.int64)
    # savez takes any mapping by keyword, and paths with a slash are allowed as member names.
    # `allow_pickle` is no argument before NumPy 2.1 but one more array; no column is of objects.
    members: dict[str, Any] = columns | sizes
    np.savez(directory / COLUMNS_FILE, **members)


def _source_record(
    task: StageTask, pixels: DecodedRoi, digests: tuple[str, str], counts: dict[str, int]
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
        mpp_um=task.roi.mpp_um,
        palette=image_header(task.roi.mask_path).palette_rgb.hex(),
        **counts,
    )
