"""What a store holds, counted: for a table that a person reads in a glance, or as JSON for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from schemas.errors import StoreError
from schemas.layout import PIXEL_ARRAYS
from schemas.manifest import SPLITS, Manifest
from schemas.prompt_kinds import POINT_SETS, PointLabel
from schemas.store.store import Store


class ClassCount(BaseModel):
    """Objects and pixels of one class in one split.

    Attributes:
        class_name: The class.
        class_id: Its code.
        split: The split.
        objects: How many objects.
        tiles: How many tiles hold one.
        pixels: Their area together.
    """

    model_config = ConfigDict(frozen=True)

    class_name: str
    class_id: int
    split: str
    objects: int
    tiles: int
    pixels: int


class SplitCount(BaseModel):
    """Tiles, ROIs and patients of one split."""

    model_config = ConfigDict(frozen=True)

    split: str
    tiles: int
    rois: int
    patients: int


class ArraySize(BaseModel):
    """One array on disk.

    Attributes:
        name: Its path.
        shape: Its shape.
        dtype: Its type.
        raw_bytes: Its size decoded.
        stored_bytes: Its size on disk.
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
        path: Where it is.
        tiles: N.
        objects: M.
        tile_size_px: S.
        object_kind: `label` or `component`.
        splits: By split.
        classes: By class and split.
        arrays: The pixel arrays on disk.
        stored_bytes: The whole store.
        prompts: Mean number of points an object by kind.
        ignored_share: Share of the tiles' pixels that count neither as object nor as background.
        kept_out: ROIs without a wanted object.
        tool_version: What wrote it.
        config: With which settings.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    tiles: int
    objects: int
    tile_size_px: int
    object_kind: str
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
    """Count a store from its columns; no pixel is read."""
    manifest = store.manifest
    keys, sizes = store.column("checksums/key").tolist(), store.column("checksums/size_bytes").tolist()
    if len(keys) != len(sizes):
        raise StoreError(f"{store.path}/checksums", "are not one for each file", "build the store again")
    files = dict(zip(keys, sizes, strict=True))
    return StoreSummary(
        path=store.path,
        tiles=len(store),
        objects=manifest.complete.objects,
        tile_size_px=manifest.tile_size_px,
        object_kind=manifest.object_kind,
        splits=tuple(_split_counts(store)),
        classes=tuple(class_counts(store)),
        arrays=tuple(_array_size(store, name, files) for name in PIXEL_ARRAYS),
        stored_bytes=sum(files.values()),
        prompts={
            name: float((store.column(points.labels_path) != PointLabel.PADDING).sum(axis=1).mean())
            for name, points in POINT_SETS.items()
        },
        ignored_share=ignored_share(manifest),
        kept_out=tuple(source.frame_id for source in manifest.sources if not source.objects),
        tool_version=manifest.tool_version,
        config=manifest.config,
    )


def ignored_share(manifest: Manifest) -> float:
    """Share of the tiles' pixels that count neither as object nor as background."""
    kept = [source for source in manifest.sources if source.objects]
    pixels = sum(source.tiles for source in kept) * manifest.tile_size_px**2
    # A manifest of others may list no source.
    return sum(source.ignored_px for source in kept) / pixels if pixels else 0.0


def class_counts(store: Store) -> list[ClassCount]:
    """Objects and pixels by class and split, for the pairs that occur."""
    tile_of = store.column("objects/tile_index")
    split_of = store.column("tiles/split")[tile_of]
    class_of, areas = store.column("objects/class_id"), store.column("objects/area_px")
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
                    )
                )
    return counts


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
