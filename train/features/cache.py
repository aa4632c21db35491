"""Features of a frozen image encoder, computed once and kept in a Zarr store beside the data.

What is kept is the smallest exact form of `train.model.encoder_levels`, of each training tile in the eight flips and
turns, or in the one way that it is stored where none are drawn. There is an array a level, (tile, view, y, x, channel),
of bfloat16 as bit patterns in uint16, since Zarr has no such type. Floats hardly compress, so they are not: a chunk is
one view with its CRC-32C, a shard one tile. So a file is a tile's level, written whole and renamed or not there at all,
and where a view lies in it follows from its size: a loading process reads straight into the tensor that it hands over.

The folder's name is a fingerprint of all that features depend on: weights, data, sizes and precision.
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

import google_crc32c
import numpy as np
import torch
import zarr
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor, nn
from zarr.codecs import Crc32cCodec

from schemas.errors import StoreError
from schemas.manifest import fingerprint
from schemas.store.store import Store
from train.model.encoder_levels import Level
from train.model.promptable import PromptableSam

ATTRIBUTES_KEY = "bcss_features"
LAYOUT_VERSION = 1

_CRC_BYTES = 4
_INDEX_ENTRY_BYTES = 16


@dataclass(frozen=True)
class FeatureCache:
    """Where features lie; equal for equal weights, data and sizes.

    Attributes:
        path: The folder.
        levels: What is kept of a view.
        views: Flips and turns of a tile, 8 or 1.
        rows: Tiles of the data, in the cache or not.
        description: What the features depend on.
    """

    path: Path
    levels: tuple[Level, ...]
    views: int
    rows: int
    description: dict[str, Any]

    @property
    def view_bytes(self) -> int:
        """Bytes of one view of one tile, checksums left out."""
        return sum(2 * math.prod(level.shape) for level in self.levels)

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile's files."""
        return sum(self._file_bytes(level) for level in self.levels)

    def read(self, tile: int, view: int) -> tuple[Tensor, ...]:
        """Read the features of a tile in one view, bfloat16 (side, side, C) a level.

        Raises:
            StoreError: They are missing or damaged.
        """
        return tuple(self._read_level(level, tile, view) for level in self.levels)

    def missing(self, tiles: Iterable[int]) -> list[int]:
        """The tiles of which a file is missing or cut short."""
        return [tile for tile in tiles if not all(self._is_whole(level, tile) for level in self.levels)]

    def write(self, tile: int, kept: Sequence[Tensor]) -> None:
        """Write a tile's levels, bfloat16 (views, side, side, C) each; a file is there whole or not at all.

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
                        file.write(_crc32c(view))
                    file.write(self._index(level))
                partial.replace(path)
            except OSError as error:
                partial.unlink(missing_ok=True)
                raise StoreError(path, f"cannot be written ({error})", _MAKE_ROOM) from error

    @contextmanager
    def being_filled(self) -> Generator[None]:
        """Make the arrays and hold the folder against other runs.

        Raises:
            StoreError: Another run fills it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(exist_ok=True)
            lock = FileLock(self.path / "lock")
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(self.path, "is being filled by another run", "wait for it, then repeat this") from error
        except OSError as error:
            raise StoreError(self.path, f"cannot be written ({error})", _MAKE_ROOM) from error
        try:
            self._make_arrays()
            yield
        finally:
            lock.release()

    def _make_arrays(self) -> None:
        """Write the metadata beside its place and move it there: what a kill left of it is written over."""
        made = self.path / "new"
        shutil.rmtree(made, ignore_errors=True)
        group = zarr.create_group(made, attributes={ATTRIBUTES_KEY: self.description})
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
        for file in sorted(made.rglob("zarr.json")):
            place = self.path / file.relative_to(made)
            place.parent.mkdir(exist_ok=True)
            file.replace(place)
        shutil.rmtree(made)

    def _read_level(self, level: Level, tile: int, view: int) -> Tensor:
        path = self._file(level, tile)
        chunk = np.empty(_chunk_bytes(level), np.uint8)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(view * len(chunk))
                count = file.readinto(chunk.data)
        except FileNotFoundError as error:
            raise StoreError(path, "is missing", "repeat the command: what is missing is computed again") from error
        data, checksum = chunk[:-_CRC_BYTES], chunk[-_CRC_BYTES:]
        if count != len(chunk) or _crc32c(data) != checksum.tobytes():
            raise StoreError(f"{path} view {view}", "is damaged", "delete this file and repeat the command")
        return torch.from_numpy(data.view("<i2").astype(np.int16, copy=False)).view(torch.bfloat16).view(level.shape)

    def files(self, tile: int) -> list[Path]:
        """The files of a tile, one a level."""
        return [self._file(level, tile) for level in self.levels]

    def _file(self, level: Level, tile: int) -> Path:
        return self.path / level.name / f"c.{tile}.0.0.0.0"

    def _file_bytes(self, level: Level) -> int:
        return self.views * (_chunk_bytes(level) + _INDEX_ENTRY_BYTES) + _CRC_BYTES

    def _is_whole(self, level: Level, tile: int) -> bool:
        path = self._file(level, tile)
        return path.exists() and path.stat().st_size == self._file_bytes(level)

    def _index(self, level: Level) -> bytes:
        """The index at a shard's end: offset and length of each chunk, and their CRC-32C."""
        size = _chunk_bytes(level)
        pairs = np.array([(view * size, size) for view in range(self.views)], "<u8").view(np.uint8).reshape(-1)
        return pairs.tobytes() + _crc32c(pairs)


def feature_cache(model: PromptableSam, store: Store, device: torch.device, *, views: int) -> FeatureCache:
    """Say where the features of a model's frozen encoder lie; nothing is read or written there.

    Args:
        model: With its weights; `train.features.fill.check_cacheable` has found nothing against it.
        store: The data, in a local folder.
        device: Where features are computed: CUDA computes them in bfloat16.
        views: 8, or 1 where no flips and turns are drawn.
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
    """Digest of all weights that the kept levels depend on."""
    encoder = model.backbone.encoder
    parts: dict[str, nn.Module] = {encoder: model.sam.get_submodule(encoder)}
    for level, layer in zip(levels, model.backbone.level_layers, strict=True):
        if level.form == "decoder" and layer is not None:
            # The digest names a layer by its last part: caches that are on disk are found by it.
            parts[layer.rpartition(".")[2]] = model.sam.get_submodule(layer)
    digest = hashlib.sha256()
    for name, part in parts.items():
        for key, weight in part.state_dict().items():
            digest.update(f"{name}.{key} {tuple(weight.shape)} {weight.dtype};".encode())
            digest.update(cast("NDArray[Any]", weight.contiguous().cpu().numpy()).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _chunk_bytes(level: Level) -> int:
    return 2 * math.prod(level.shape) + _CRC_BYTES


def _crc32c(data: NDArray[np.uint8]) -> bytes:
    return cast("int", google_crc32c.value(cast("Any", data))).to_bytes(_CRC_BYTES, "little")


_MAKE_ROOM = "free space, let this user write there, or leave --cache-features out"
