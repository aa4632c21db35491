"""Features of a frozen image encoder, computed once and kept in a Zarr store beside the data.

The cache keeps the features of each training tile in the smallest exact form that `train.model.encoder_levels` knows. A
tile has eight views, one for each orientation, or only the view that is in the store if no orientations are drawn.

There is one array for each level, with the axes (tile, view, y, x, channel). The values are bfloat16; Zarr has no such
type, so their bit patterns are stored as uint16. They are not compressed, because floats hardly compress. A chunk is
one view with its CRC-32C, and a shard is one tile. Each file therefore holds one level of one tile. It is written under
another name and renamed when it is complete, so it is either whole or absent. The size of a view gives the position of
each view in the file, so a loading process reads one view straight into its tensor.

The folder's name contains a fingerprint of everything that the features depend on: weights, data, sizes and precision.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import zarr
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor, nn
from zarr.codecs import Crc32cCodec

from schemas.errors import StoreError
from schemas.manifest import fingerprint
from schemas.store.shards import CRC_BYTES, crc32c, shard_index, shard_index_bytes, without_crc32c
from schemas.store.store import Store
from train.model.encoder_levels import Level
from train.model.promptable import PromptableSam

ATTRIBUTES_KEY = "bcss_features"
"""Key of the cache's description in the attributes of its Zarr group."""

LAYOUT_VERSION = 1


@dataclass(frozen=True)
class FeatureCache:
    """The feature cache of a model and a store; equal weights, data and sizes give an equal cache.

    Attributes:
        path: Folder of the cache.
        levels: The feature levels that are kept for each view.
        views: Number of orientations of each tile, 8 or 1.
        rows: Number of tiles in the store, including tiles that are not in the cache.
        description: Everything that the features depend on, as JSON values.
    """

    path: Path
    levels: tuple[Level, ...]
    views: int
    rows: int
    description: dict[str, Any]

    @property
    def view_bytes(self) -> int:
        """Bytes of one view of one tile, without checksums."""
        return sum(2 * math.prod(level.shape) for level in self.levels)

    @property
    def tile_bytes(self) -> int:
        """Bytes of all files of one tile."""
        return sum(self._file_bytes(level) for level in self.levels)

    def read(self, tile: int, view: int) -> tuple[Tensor, ...]:
        """Read the features of one view of a tile.

        Args:
            tile: Index of the tile in the store.
            view: Index of the orientation, less than `views`.

        Returns:
            One tensor per level, each bfloat16 (side, side, C).

        Raises:
            StoreError: The features are missing or damaged.
        """
        return tuple(self._read_level(level, tile, view) for level in self.levels)

    def missing(self, tiles: Iterable[int]) -> list[int]:
        """Return the tiles that have a missing file or a file of the wrong size."""
        return [tile for tile in tiles if not all(self._is_whole(level, tile) for level in self.levels)]

    def write(self, tile: int, kept: Sequence[Tensor]) -> None:
        """Write the features of a tile; afterwards each file is either whole or absent.

        Args:
            tile: Index of the tile in the store.
            kept: One tensor per level, each bfloat16 (views, side, side, C).

        Raises:
            StoreError: The disk is full or not writable.
        """
        for level, values in zip(self.levels, kept, strict=True):
            path = self._file(level, tile)
            partial = path.with_name(f"{path.name}.partial")
            bits = values.contiguous().cpu().view(torch.int16).numpy().astype("<i2", copy=False)
            try:
                with partial.open("wb") as file:
                    for view in bits.reshape(self.views, -1).view(np.uint8):
                        file.write(view.data)
                        file.write(crc32c(view))
                    file.write(shard_index([_chunk_bytes(level)] * self.views, self.views))
                partial.replace(path)
            except OSError as error:
                partial.unlink(missing_ok=True)
                raise StoreError(path, f"cannot be written ({error})", _MAKE_ROOM) from error

    @contextmanager
    def being_filled(self) -> Generator[None]:
        """Make the arrays, and lock the folder so that no other run can fill it at the same time.

        Raises:
            StoreError: Another run is filling the cache, or the folder cannot be written.
        """
        try:
            self.path.mkdir(exist_ok=True)
            lock = FileLock(self.path / "lock")
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(self.path, "is being filled by another run", "wait, then repeat the command") from error
        except OSError as error:
            raise StoreError(self.path, f"cannot be written ({error})", _MAKE_ROOM) from error
        try:
            self._make_arrays()
            yield
        finally:
            lock.release()

    def _make_arrays(self) -> None:
        """Write the metadata of the arrays.

        The metadata is first written to another folder and then moved file by file. It replaces incomplete metadata
        that a killed run may have left.
        """
        new = self.path / "new"
        shutil.rmtree(new, ignore_errors=True)
        group = zarr.create_group(new, attributes={ATTRIBUTES_KEY: self.description})
        for level in self.levels:
            group.create_array(
                level.name,
                shape=(self.rows, self.views, *level.shape),
                dtype="uint16",
                chunks=(1, 1, *level.shape),
                shards=(1, self.views, *level.shape),
                compressors=[Crc32cCodec()],
                chunk_key_encoding={"name": "default", "separator": "."},
                dimension_names=("tile", "view", "y", "x", "channel"),
                attributes={"bits_of": "bfloat16", **asdict(level)},
            )
        for file in sorted(new.rglob("zarr.json")):
            target = self.path / file.relative_to(new)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
        shutil.rmtree(new)

    def _read_level(self, level: Level, tile: int, view: int) -> Tensor:
        path = self._file(level, tile)
        chunk = np.empty(_chunk_bytes(level), np.uint8)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(view * len(chunk))
                count = file.readinto(chunk.data)
        except FileNotFoundError as error:
            raise StoreError(path, "is missing", "repeat the command, which computes missing features again") from error
        try:
            without_crc32c(chunk[:count].data)
        except ValueError as error:
            raise StoreError(f"{path} view {view}", "is damaged", "delete this file and repeat the command") from error
        data = chunk[:-CRC_BYTES]
        return torch.from_numpy(data.view("<i2").astype(np.int16, copy=False)).view(torch.bfloat16).view(level.shape)

    def files(self, tile: int) -> list[Path]:
        """Return the paths of a tile's files, one for each level."""
        return [self._file(level, tile) for level in self.levels]

    def _file(self, level: Level, tile: int) -> Path:
        return self.path / level.name / f"c.{tile}.0.0.0.0"

    def _file_bytes(self, level: Level) -> int:
        return self.views * _chunk_bytes(level) + shard_index_bytes(self.views)

    def _is_whole(self, level: Level, tile: int) -> bool:
        path = self._file(level, tile)
        return path.exists() and path.stat().st_size == self._file_bytes(level)


def feature_cache(model: PromptableSam, store: Store, device: torch.device, *, views: int) -> FeatureCache:
    """Describe the feature cache of a model and a store, without reading or writing its folder.

    Args:
        model: The model with its weights; `train.features.fill.check_cacheable` must have accepted it.
        store: The data, in a local folder.
        device: The device that computes the features: in bfloat16 on CUDA, in float32 on the CPU.
        views: Number of orientations of each tile: 8, or 1 if no orientations are drawn.

    Returns:
        The cache; its folder may not exist yet.
    """
    levels = model.kept_levels
    description = {
        "layout": LAYOUT_VERSION,
        "model": model.size,
        "image_size": model.image_size,
        "views": views,
        "levels": [asdict(level) for level in levels],
        "computed_in": "bfloat16" if device.type == "cuda" else "float32",
        "encoder_sha256": _weights_sha256(model, levels),
        "data_sha256": store.manifest.complete.checksums_sha256,
    }
    data = Path(store.path)
    path = data.with_name(f"{data.name}.features-{fingerprint(description)[:12]}.zarr")
    return FeatureCache(path, levels, views, len(store), description)


def _weights_sha256(model: PromptableSam, levels: Sequence[Level]) -> str:
    """Return the SHA-256 of all weights that the kept levels depend on."""
    encoder = model.backbone.encoder
    parts: dict[str, nn.Module] = {encoder: model.sam.get_submodule(encoder)}
    for level, layer in zip(levels, model.backbone.level_layers, strict=True):
        if level.form == "decoder" and layer is not None:
            # The digest includes only the last part of the layer's name. Another name would change the digest, and
            # caches that are already on a disk would no longer be found.
            parts[layer.rpartition(".")[2]] = model.sam.get_submodule(layer)
    digest = hashlib.sha256()
    for name, part in parts.items():
        for key, weight in part.state_dict().items():
            digest.update(f"{name}.{key} {tuple(weight.shape)} {weight.dtype};".encode())
            digest.update(cast("NDArray[Any]", weight.contiguous().cpu().numpy()).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _chunk_bytes(level: Level) -> int:
    """Return the bytes of one view of a level: two per value, and its checksum."""
    return 2 * math.prod(level.shape) + CRC_BYTES


_MAKE_ROOM = "free space, give this user permission to write there, or leave --cache-features out"
