"""Compare the time to read a tile and its size, by codec, shard and reader: the table that `loader.py` prints."""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from benchmarks.claims import Claim, medians
from schemas.bits import pack_mask, unpack_mask
from schemas.store.jpegxl import JpegXlCodec
from schemas.store.rows import RowReader
from schemas.store.store import Store

TILES = 12
OBJECTS = 3
SHARD = 4

IMAGE_CODECS: dict[str, dict[str, Any]] = {
    "none": {"compressors": [Crc32cCodec()]},
    "blosc-lz4, bit shuffle": {
        "compressors": [BloscCodec(cname="lz4", shuffle="bitshuffle", typesize=1), Crc32cCodec()]
    },
    "blosc-lz4, no shuffle": {"compressors": [BloscCodec(cname="lz4", shuffle="noshuffle", typesize=1), Crc32cCodec()]},
    "zstd 3": {"compressors": [ZstdCodec(level=3, checksum=True)]},
    "blosc-zstd 5, bit shuffle": {
        "compressors": [BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=1), Crc32cCodec()]
    },
    "JPEG XL, lossless": {"serializer": JpegXlCodec(), "compressors": [Crc32cCodec()]},
}


Reader = Callable[[int], object]
"""A function that reads a tile and its segments as pixels."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a name, its size relative to PNGs of its tiles, and the milliseconds of each reader."""

    name: str
    size_ratio: float
    ms: dict[str, float]


def compare_codecs(store: Store, folder: Path, repeats: int) -> list[Claim]:
    """Measure reading tiles with three segments each, in random order, by image codec, packing, shard and reader."""
    order = [index for index in range(len(store)) if len(store.tile(index).classes) >= OBJECTS][:TILES]
    images = np.stack([store.tile(index).image for index in order])
    masks = np.concatenate([store.tile(index).segments()[:OBJECTS] for index in order])
    png = sum(_png_bytes(image) for image in images)
    mapped = _memory_map(folder, images, masks)
    packed = _write(folder / "packed.zarr", pack_mask(masks), SHARD * OBJECTS, compressors=[ZstdCodec(checksum=True)])
    rows: list[Row] = []
    for name, codec in IMAGE_CODECS.items():
        array = _write(folder / f"{name}.zarr", images, SHARD, **codec)
        rows.append(_measure(name, array, packed, mapped, repeats, png))
    chosen = IMAGE_CODECS["blosc-lz4, bit shuffle"]
    for tiles in (1, 12):
        array = _write(folder / f"shard{tiles}.zarr", images, tiles, **chosen)
        rows.append(_measure(f"blosc-lz4, {tiles} tiles per shard", array, packed, mapped, repeats, png))
    as_bytes = _write(folder / "bytes.zarr", masks, SHARD * OBJECTS, compressors=[ZstdCodec(checksum=True)])
    lz4 = _write(folder / "again.zarr", images, SHARD, **chosen)
    rows.append(_measure("blosc-lz4, a byte per pixel of masks", lz4, as_bytes, mapped, repeats, png))
    return _report(rows, len(order))


def _report(rows: list[Row], tiles: int) -> list[Claim]:
    print(f"\n{tiles} tiles with {OBJECTS} segments each, one thread, ms per tile", end="; ")
    print("x: ours to a memory map of the pixels")
    readers = list(rows[0].ms)
    print(f"{'codec of images':38}{'/ PNG':>7}" + "".join(f"{reader:>12}" for reader in readers) + f"{'x':>7}")
    for row in rows:
        figures = "".join(f"{row.ms.get(reader, float('nan')):12.2f}" for reader in readers)
        print(f"{row.name:38}{row.size_ratio:7.2f}{figures}{row.ms['ours'] / row.ms['map']:7.1f}")
    named = {row.name: row for row in rows}
    ours, raw = named["blosc-lz4, bit shuffle"], named["none"]
    return [
        Claim("reading a tile / memory map, blosc-lz4", ours.ms["ours"] / ours.ms["map"], 10.0, at_most=True),
        Claim("reading a tile / memory map, uncompressed", raw.ms["ours"] / raw.ms["map"], 5.0, at_most=True),
        Claim("images in the store / PNGs of the same tiles", ours.size_ratio, 1.7, at_most=True),
    ]


def _measure(name: str, images: Path, masks: Path, mapped: Reader, repeats: int, png: int) -> Row:
    arrays = zarr.open_array(images, mode="r"), zarr.open_array(masks, mode="r")
    ways = {"map": mapped, "ours": _ours(*arrays), "zarr": _by_zarr(*arrays)}
    if importlib.util.find_spec("zarrs") and "JPEG" not in name:
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}):
            ways["zarrs"] = _by_zarr(zarr.open_array(images, mode="r"), zarr.open_array(masks, mode="r"))
    tiles = arrays[0].shape[0]
    order = random.Random(0).sample(range(tiles), tiles)
    seconds = medians({way: partial(_all, read, order) for way, read in ways.items()}, repeats)
    stored = sum(file.stat().st_size for file in images.rglob("c/**/*") if file.is_file())
    return Row(name, stored / png, {way: took * 1e3 / tiles for way, took in seconds.items()})


def _all(read: Reader, order: list[int]) -> None:
    for tile in order:
        read(tile)


def _ours(images: zarr.Array[Any], masks: zarr.Array[Any]) -> Reader:
    image_rows, mask_rows = RowReader(images, "images"), RowReader(masks, "segments")

    def read(tile: int) -> object:
        rows = range(tile * OBJECTS, (tile + 1) * OBJECTS)
        return image_rows.read([tile])[0], _unpacked(mask_rows.read(rows))

    return read


def _by_zarr(images: zarr.Array[Any], masks: zarr.Array[Any]) -> Reader:
    def read(tile: int) -> object:
        return np.asarray(images[tile]), _unpacked(np.asarray(masks[tile * OBJECTS : (tile + 1) * OBJECTS]))

    return read


def _unpacked(masks: NDArray[Any]) -> NDArray[np.bool_]:
    return masks if masks.dtype == np.bool_ else unpack_mask(masks)


def _memory_map(folder: Path, images: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Reader:
    """Read the same pixels, one byte each, from plain files."""
    images.tofile(folder / "images.raw")
    masks.tofile(folder / "masks.raw")
    mapped_images = np.memmap(folder / "images.raw", np.uint8, "r", shape=images.shape)
    mapped_masks = np.memmap(folder / "masks.raw", np.bool_, "r", shape=masks.shape)

    def read(tile: int) -> object:
        return np.array(mapped_images[tile]), np.array(mapped_masks[tile * OBJECTS : (tile + 1) * OBJECTS])

    return read


def _write(path: Path, values: NDArray[Any], shard_rows: int, **settings: Any) -> Path:
    array = zarr.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(1, *values.shape[1:]),
        shards=(shard_rows, *values.shape[1:]),
        **settings,
    )
    array[:] = values
    return path


def _png_bytes(image: NDArray[np.uint8]) -> int:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.tell()
