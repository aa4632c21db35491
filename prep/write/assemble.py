"""Assemble prepared ROIs into one store: join their chunks into shards, then write columns, checksums and manifest."""

from __future__ import annotations

from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from prep.config import BuildConfig
from prep.parallel import TaskMap
from prep.plan import BuildPlan
from prep.write.checksums import write_checksums
from prep.write.roi_folder import RoiFolder, chunk_file, load_columns
from prep.write.shards import ChunkRun, ShardTask, chunk_path, create_array, rows_per_shard, write_shard
from prep.write.tracks import kept_sequences
from schemas.command.stage_timer import timed
from schemas.errors import SourceError
from schemas.layout import ATTRIBUTES_KEY, PIXEL_ARRAYS, SCHEMA_VERSION, SEQUENCE_SCHEMA_VERSION, ArraySpec
from schemas.manifest import Completion, Manifest, fingerprint, with_own_digest

STORE_DIR = "store"


def assemble(work: Path, folders: list[RoiFolder], plan: BuildPlan, run: TaskMap) -> Manifest:
    """Write a whole store to `work / STORE_DIR`.

    Args:
        work: The working folder.
        folders: All ROIs, in the order of the store. A ROI without an object is left out of the store; a frame only if
            its whole sequence has none.
        plan: What the store is made from.
        run: Runs the tasks that write shards.

    Returns:
        The manifest of the store.

    Raises:
        SourceError: No ROI has an object.
    """
    sequences = set(kept_sequences(folders))
    kept = [folder for folder in folders if folder.source.objects or folder.source.sequence in sequences]
    if not kept:
        raise SourceError(
            folders[0].source.mask or folders[0].source.image,
            f"no ROI contains a selected class ({len(folders)} checked, this is the first)",
            "check --classes and --min-area",
        )
    store_dir = work / STORE_DIR
    checksums_sha256 = _write_arrays(work, store_dir, kept, plan.config, plan.specs, run)
    return _complete(store_dir, folders, kept, plan, checksums_sha256)


def _write_arrays(
    work: Path,
    store_dir: Path,
    rois: list[RoiFolder],
    config: BuildConfig,
    specs: tuple[ArraySpec, ...],
    run: TaskMap,
) -> str:
    """Write every array into a new store and return the digest over all checksums."""
    parts = [load_columns(folder.directory) for folder in rois]
    pixel_specs = [spec for spec in specs if spec.path in PIXEL_ARRAYS]
    (work / "shards").mkdir(exist_ok=True)
    tasks = [task for spec in pixel_specs for task in _shard_tasks(work / "shards", rois, parts, spec)]
    written = list(run(write_shard, tasks))
    with timed("columns"):
        group = _write_columns(store_dir, rois, parts, config, specs)
    for file in written:
        (store_dir / file.key).parent.mkdir(parents=True, exist_ok=True)
        (work / "shards" / file.key).rename(store_dir / file.key)
    with timed("checksums"):
        return write_checksums(group, store_dir, written)


def _write_columns(
    store_dir: Path,
    rois: list[RoiFolder],
    parts: list[dict[str, np.ndarray]],
    config: BuildConfig,
    specs: tuple[ArraySpec, ...],
) -> zarr.Group:
    """Create every array in a new store, and fill the columns."""
    group = zarr.create_group(store_dir, zarr_format=3, overwrite=True)
    columns = _joined_columns(rois, parts)
    rows = {
        "tile": sum(folder.source.tiles for folder in rois),
        "object": sum(folder.source.objects for folder in rois),
    }
    for spec in specs:
        if spec.path in PIXEL_ARRAYS:
            create_array(group, spec, rows[spec.axis], codec=config.codec, sharded=True)
        else:
            values = columns[spec.path]
            array = create_array(group, spec, len(values))
            array[:] = values.astype(object) if spec.dtype == "str" else values
    return group


def _joined_columns(rois: list[RoiFolder], parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    first_tiles = accumulate((folder.source.tiles for folder in rois), initial=0)
    places = {name: place for place, name in enumerate(kept_sequences(rois))}
    for roi, part, first_tile in zip(rois, parts, first_tiles, strict=False):
        part["objects/tile_index"] = part["objects/tile_index"] + first_tile
        if roi.source.sequence is not None:
            part["tiles/sequence"] = part["tiles/sequence"] + np.int32(places[roi.source.sequence])
    joined = {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}
    joined["tiles/object_offsets"] = np.concatenate([[0], np.cumsum(joined.pop("object_counts"))])
    return joined


def _shard_tasks(
    folder: Path, rois: list[RoiFolder], columns: list[dict[str, np.ndarray]], spec: ArraySpec
) -> list[ShardTask]:
    """Cut the rows of all ROIs into shards."""
    slots = rows_per_shard(spec)
    pieces: list[list[ChunkRun]] = [[]]
    free = slots
    for roi, part in zip(rois, columns, strict=True):
        sizes: list[int] = part[f"sizes/{spec.path}"].tolist()
        offset = row = 0
        while row < len(sizes):
            if not free:
                pieces.append([])
                free = slots
            taken = tuple(sizes[row : row + free])
            pieces[-1].append(ChunkRun(chunk_file(roi.directory, spec.path), offset, taken))
            offset, row, free = offset + sum(taken), row + len(taken), free - len(taken)
    return [
        ShardTask(folder, chunk_path(spec.path, shard, spec), tuple(runs), slots) for shard, runs in enumerate(pieces)
    ]


def _complete(
    store_dir: Path, folders: list[RoiFolder], kept: list[RoiFolder], plan: BuildPlan, checksums_sha256: str
) -> Manifest:
    """Write the manifest, with the completion record in it, into the finished group."""
    group = zarr.open_group(store_dir, mode="r+")
    class_ids = cast("zarr.Array[Any]", group["objects/class_id"])[:]
    config = plan.config
    settings, sequences = config.model_dump(mode="json"), kept_sequences(kept)
    manifest = Manifest(
        schema_version=SEQUENCE_SCHEMA_VERSION if sequences else SCHEMA_VERSION,
        tool_version=version("bcss-sam2"),
        tile_size_px=config.size_px,
        objects=config.objects,
        positive_points=config.positive_points,
        negative_points=config.negative_points,
        classes=tuple(config.describe(code) for code in np.unique(np.asarray(class_ids)).tolist()),
        ignore=config.ignore,
        config=settings,
        config_fingerprint=fingerprint(settings),
        sources=tuple(folder.source for folder in folders),
        complete=Completion(
            tiles=sum(folder.source.tiles for folder in kept),
            objects=sum(folder.source.objects for folder in kept),
            checksums_sha256=checksums_sha256,
        ),
        dataset=config.dataset,
        split_method=plan.split_method,
        sequences=sequences,
    )
    manifest = with_own_digest(manifest)
    group.attrs[ATTRIBUTES_KEY] = manifest.model_dump(mode="json", by_alias=True)
    return manifest
