"""Build a store: find the ROIs, prepare each, join shards, write columns, publish.

Everything is written beside the destination and appears there by one rename, after the completion record.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import zarr

from prep.checksums import write_checksums
from prep.config import BuildConfig
from prep.decode import image_header
from prep.discover import RoiSource, find_pairs
from prep.roi import size_mismatch
from prep.shards import ShardTask, chunk_path, create_array, rows_per_shard, write_shard
from prep.split import bcss_split
from prep.stage import StagedRoi, StageTask, load_columns, stage_roi
from schemas.classes import describe_class
from schemas.errors import SourceError, StoreError
from schemas.layout import ATTRIBUTES_KEY, PIXEL_ARRAYS, ArraySpec, array_specs
from schemas.manifest import Completion, Manifest, fingerprint
from schemas.store import open_store

logger = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class _Map(Protocol):
    def __call__(self, function: Callable[[_Task], _Result], tasks: Iterable[_Task], /) -> Iterator[_Result]: ...


@dataclass(frozen=True)
class BuildProgress:
    """Told after each ROI.

    Attributes:
        done: ROIs prepared so far.
        total: All ROIs.
        tiles: Tiles so far.
        source_bytes: Bytes of the ROIs so far, decoded.
    """

    done: int
    total: int
    tiles: int
    source_bytes: int


def build_store(
    source_dir: Path,
    destination: Path,
    config: BuildConfig,
    *,
    workers: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> Manifest:
    """Build a store from a folder of images and masks.

    Args:
        source_dir: Holds the folders of images and masks.
        destination: The store to be; absent, or a store if `overwrite`.
        config: What to build.
        workers: Processes; the arrays are the same for any number.
        overwrite: Whether an existing store may be replaced, once the new one is whole.
        on_progress: Called after each ROI.

    Raises:
        SourceError: A source file cannot be used.
        StoreError: The destination exists.
    """
    _check_destination(destination, overwrite=overwrite)
    rois = find_pairs(source_dir, config.images, config.masks)
    specs = tuple(array_specs(config.size_px, _check_headers(rois), config.positive_points, config.negative_points))
    partial = destination.with_name(f"{destination.name}.partial")
    with _working_folder(partial), _worker_map(min(workers, len(rois))) as run:
        splits = bcss_split(rois)
        tasks = [
            StageTask(roi, splits[roi.patient], source_dir, partial / "rois" / str(number), config, specs)
            for number, roi in enumerate(rois)
        ]
        staged = list(_reported(run(stage_roi, tasks), len(tasks), on_progress))
        kept = _with_objects(staged)
        store_dir = partial / "store"
        checksums_sha256 = _write_arrays(store_dir, kept, specs, run)
        manifest = _complete(store_dir, staged, kept, config, checksums_sha256)
        _publish(store_dir, destination, partial / "replaced")
    return manifest


def _check_destination(destination: Path, *, overwrite: bool) -> None:
    if not destination.exists():
        return
    if not overwrite:
        raise StoreError(destination, "exists", "choose another --out, or give --overwrite to replace it")
    # Only what a build of ours made is ever removed.
    open_store(destination)


def _check_headers(rois: list[RoiSource]) -> str:
    """Compare the sizes of all pairs before the first is decoded, and return the label dtype that holds all masks."""
    dtype = "uint8"
    for roi in rois:
        image, mask = image_header(roi.image_path), image_header(roi.mask_path)
        if image.size != mask.size:
            raise size_mismatch(roi, image.size, mask.size)
        if mask.mode.startswith("I"):
            dtype = "uint16"
    return dtype


@contextmanager
def _working_folder(folder: Path) -> Generator[None]:
    # What an interrupted build left has no use without its plan.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _worker_map(workers: int) -> Generator[_Map]:
    """Yield an ordered map over processes, or over none where one is enough."""
    if workers <= 1:
        yield map
        return
    # Spawned, not forked: a fork copies whatever locks the libraries of the parent hold.
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield executor.map
    except BrokenProcessPool as error:
        raise SourceError(
            "a worker process", "died, often for want of memory", "run again with fewer --workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _reported(
    results: Iterator[StagedRoi], total: int, on_progress: Callable[[BuildProgress], None] | None
) -> Iterator[StagedRoi]:
    tiles = source_bytes = 0
    for done, roi in enumerate(results, start=1):
        if not roi.source.objects:
            logger.warning("%s holds no wanted class and is kept out", roi.source.mask)
        tiles += roi.source.tiles
        # Three bytes of colour and one of label a pixel.
        source_bytes += roi.source.width_px * roi.source.height_px * 4
        if on_progress:
            on_progress(BuildProgress(done, total, tiles, source_bytes))
        yield roi


def _with_objects(staged: list[StagedRoi]) -> list[StagedRoi]:
    kept = [roi for roi in staged if roi.source.objects]
    if not kept:
        raise SourceError(
            staged[0].source.mask, "and every other mask hold no wanted object", "check --classes and --min-area"
        )
    return kept


def _write_arrays(store_dir: Path, rois: list[StagedRoi], specs: tuple[ArraySpec, ...], run: _Map) -> str:
    """Write every array and return the digest over all checksums."""
    group = zarr.create_group(store_dir, zarr_format=3)
    columns = _joined_columns(rois)
    rows = {
        "tile": sum(roi.source.tiles for roi in rois),
        "object": sum(roi.source.objects for roi in rois),
    }
    shards: list[ShardTask] = []
    for spec in specs:
        if spec.path in PIXEL_ARRAYS:
            create_array(group, spec, rows[spec.axis], sharded=True)
            shards.extend(_shard_tasks(store_dir, rois, spec))
        else:
            values = columns[spec.path]
            array = create_array(group, spec, len(values))
            array[:] = values.astype(object) if spec.dtype == "str" else values
    return write_checksums(group, store_dir, list(run(write_shard, shards)))


def _joined_columns(rois: list[StagedRoi]) -> dict[str, np.ndarray]:
    parts = [load_columns(roi.directory) for roi in rois]
    first_tiles = accumulate((roi.source.tiles for roi in rois), initial=0)
    for part, first_tile in zip(parts, first_tiles, strict=False):
        part["objects/tile_index"] = part["objects/tile_index"] + first_tile
    joined = {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}
    joined["tiles/object_offsets"] = np.concatenate([[0], np.cumsum(joined.pop("object_counts"))])
    return joined


def _shard_tasks(store_dir: Path, rois: list[StagedRoi], spec: ArraySpec) -> list[ShardTask]:
    chunks = [
        roi.directory / chunk_path(spec.path, row, spec)
        for roi in rois
        for row in range(roi.source.tiles if spec.axis == "tile" else roi.source.objects)
    ]
    slots = rows_per_shard(spec)
    return [
        ShardTask(store_dir / chunk_path(spec.path, shard, spec), tuple(chunks[start : start + slots]), slots)
        for shard, start in enumerate(range(0, len(chunks), slots))
    ]


def _complete(
    store_dir: Path, staged: list[StagedRoi], kept: list[StagedRoi], config: BuildConfig, checksums_sha256: str
) -> Manifest:
    """Write the manifest, with the completion record in it, into the finished group."""
    codes = sorted({code for roi in kept for code in roi.class_codes})
    settings = config.model_dump(mode="json")
    group = zarr.open_group(store_dir, mode="r+")
    manifest = Manifest(
        tool_version=version("bcss-sam2"),
        tile_size_px=config.size_px,
        objects=config.objects,
        positive_points=config.positive_points,
        negative_points=config.negative_points,
        classes=tuple(describe_class(code) for code in codes),
        ignore=config.ignore,
        config=settings,
        config_fingerprint=fingerprint(settings),
        sources=tuple(roi.source for roi in staged),
        complete=Completion(
            tiles=sum(roi.source.tiles for roi in kept),
            objects=sum(roi.source.objects for roi in kept),
            checksums_sha256=checksums_sha256,
        ),
    )
    group.attrs[ATTRIBUTES_KEY] = manifest.model_dump(mode="json")
    return manifest


def _publish(store_dir: Path, destination: Path, replaced: Path) -> None:
    if destination.exists():
        destination.rename(replaced)
    store_dir.rename(destination)
