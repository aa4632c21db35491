"""Summarize a store in numbers, for the tables and the JSON of `bcss-prep inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from schemas.layout import PIXEL_ARRAYS
from schemas.manifest import SPLITS, Manifest
from schemas.prompt_kinds import PointLabel
from schemas.store.store import Store


class ClassCount(BaseModel):
    """Objects and pixels of one class in one split.

    Attributes:
        class_name: Name of the class.
        class_id: Code of the class.
        split: `train`, `val` or `test`.
        objects: Number of objects.
        tiles: Number of tiles with at least one of them.
        pixels: Their total area in the tiles, in pixels; where tiles overlap, pixels are counted several times.
        roi_pixels: The area of the class in the masks, in source pixels, each counted once; None in stores of earlier
            versions.
    """

    model_config = ConfigDict(frozen=True)

    class_name: str
    class_id: int
    split: str
    objects: int
    tiles: int
    pixels: int
    roi_pixels: int | None


class SplitCount(BaseModel):
    """Number of tiles, ROIs and patients of one split.

    Attributes:
        split: `train`, `val` or `test`.
        tiles: Number of tiles.
        rois: Number of ROIs.
        patients: Number of patients.
    """

    model_config = ConfigDict(frozen=True)

    split: str
    tiles: int
    rois: int
    patients: int


class ArraySize(BaseModel):
    """One array on disk.

    Attributes:
        name: Path in the store.
        shape: Shape.
        dtype: NumPy type.
        raw_bytes: Decoded size in bytes.
        stored_bytes: Size of its files in bytes.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    shape: tuple[int, ...]
    dtype: str
    raw_bytes: int
    stored_bytes: int


class StoreSummary(BaseModel):
    """A store in numbers; `bcss-prep inspect --json` prints it.

    Attributes:
        path: Path or URL of the store.
        tiles: N, the number of tiles.
        objects: M, the number of objects.
        tile_size_px: S, the side of a tile in pixels.
        object_kind: `label`, `component` or `instance`.
        sequences: Number of sequences; 0 for a store of ROIs.
        frames: Number of frames of all sequences.
        labelled_frames: Number of frames with a mask.
        tracks: Number of objects of all sequences, each counted once in its sequence.
        splits: Tiles, ROIs and patients of each split.
        classes: Objects and pixels of each class in each split.
        arrays: The pixel arrays on disk.
        stored_bytes: Size of all files in bytes.
        prompts: Mean number of points of an object, by the name of the point set.
        ignored_share: Fraction of the tiles' pixels that count neither as object nor as background, 0 to 1.
        kept_out: ROIs or sequences that were left out, since they contain no selected class.
        tool_version: Version of the package that wrote the store.
        config: Settings of the build.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    tiles: int
    objects: int
    tile_size_px: int
    object_kind: str
    sequences: int
    frames: int
    labelled_frames: int
    tracks: int
    splits: tuple[SplitCount, ...]
    classes: tuple[ClassCount, ...]
    arrays: tuple[ArraySize, ...]
    stored_bytes: int
    prompts: dict[str, float]
    ignored_share: float
    kept_out: tuple[str, ...]
    tool_version: str
    config: dict[str, Any]


def summarize_store(store: Store) -> StoreSummary:
    """Summarize a store from its columns; no pixel is read."""
    manifest = store.manifest
    files = store.files.sizes
    frames = [source for source in manifest.kept if source.sequence is not None]
    stored = {source.frame_id for source in manifest.kept}
    left_out = [source for source in manifest.sources if source.frame_id not in stored]
    return StoreSummary(
        path=store.path,
        tiles=len(store),
        objects=manifest.complete.objects,
        tile_size_px=manifest.tile_size_px,
        object_kind=manifest.object_kind,
        sequences=len(store.sequences),
        frames=len(frames),
        labelled_frames=sum(source.mask is not None for source in frames),
        tracks=_track_count(store),
        splits=tuple(_split_counts(store)),
        classes=tuple(class_counts(store)),
        arrays=tuple(_array_size(store, name, files) for name in PIXEL_ARRAYS),
        stored_bytes=sum(files.values()),
        prompts={
            name: float((store.column(points.labels_path) != PointLabel.PADDING).sum(axis=1).mean())
            for name, points in store.point_sets.items()
        },
        ignored_share=ignored_share(manifest),
        kept_out=tuple(dict.fromkeys(source.sequence or source.frame_id for source in left_out)),
        tool_version=manifest.tool_version,
        config=manifest.config,
    )


def _track_count(store: Store) -> int:
    """Count the objects of all sequences, each once in its sequence."""
    if not store.sequences:
        return 0
    sequence_of = store.column("tiles/sequence")[store.column("objects/tile_index")]
    return np.unique(np.stack([sequence_of, store.column("objects/track")]), axis=1).shape[1]


def has_padding(manifest: Manifest) -> bool:
    """Whether tiles may be padded: they may reach beyond ROIs, or a ROI is smaller than a tile."""
    config = manifest.config
    if config.get("layout") == "resize":
        return False
    mpp_um, size_px = config.get("mpp_um"), manifest.tile_size_px
    scales = [(source.mpp_um or 0) / mpp_um if mpp_um else 1.0 for source in manifest.kept]
    return config.get("edge") == "pad" or any(
        min(source.width_px, source.height_px) * scale < size_px - 0.5
        for source, scale in zip(manifest.kept, scales, strict=True)
    )


def ignored_share(manifest: Manifest) -> float:
    """Return the share of the tiles' pixels that count neither as object nor as background, 0 to 1."""
    kept = manifest.kept
    pixels = sum(source.tiles for source in kept) * manifest.tile_size_px**2
    # A manifest that another program wrote may list no sources.
    return sum(source.ignored_px for source in kept) / pixels if pixels else 0.0


def class_counts(store: Store) -> list[ClassCount]:
    """Count objects and pixels by class and split, for the pairs that occur."""
    tile_of = store.column("objects/tile_index")
    split_of = store.column("tiles/split")[tile_of]
    class_of, areas = store.column("objects/class_id"), store.column("objects/area_px")
    rois_of = {split: set(store.column("tiles/frame_id")[store.column("tiles/split") == split]) for split in SPLITS}
    counts: list[ClassCount] = []
    for info in store.manifest.classes:
        for split in SPLITS:
            rows = (class_of == info.code) & (split_of == split)
            if rows.any():
                counts.append(
                    ClassCount(
                        class_name=info.name,
                        class_id=info.code,
                        split=split,
                        objects=int(rows.sum()),
                        tiles=len(np.unique(tile_of[rows])),
                        pixels=int(areas[rows].sum(dtype=np.int64)),
                        roi_pixels=_roi_pixels(store.manifest, rois_of[split], info.code),
                    )
                )
    return counts


def _roi_pixels(manifest: Manifest, rois: set[str], code: int) -> int | None:
    """Return the number of source pixels of a class in the given ROIs; None if the manifest does not record it."""
    sources = [source.class_px for source in manifest.sources if source.frame_id in rois]
    return None if None in sources or not sources else sum((found or {}).get(code, 0) for found in sources)


def _split_counts(store: Store) -> list[SplitCount]:
    split_of = store.column("tiles/split")
    rois, patients = store.column("tiles/frame_id"), store.column("tiles/patient")
    return [
        SplitCount(
            split=split,
            tiles=int((split_of == split).sum()),
            rois=len(set(rois[split_of == split])),
            patients=len(set(patients[split_of == split])),
        )
        for split in SPLITS
    ]


def _array_size(store: Store, name: str, files: dict[str, int]) -> ArraySize:
    array = store.array(name)
    return ArraySize(
        name=name,
        shape=tuple(int(side) for side in array.shape),
        dtype=str(array.dtype),
        raw_bytes=int(array.nbytes),
        stored_bytes=sum(size for key, size in files.items() if Path(key).parts[0] == name),
    )
