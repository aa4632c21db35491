"""Check the metadata of an array before the memory that it claims is allocated.

A store may come from an untrusted source. So the numbers in its manifest are limited, each array must have the shape
and type that follow from the manifest, a chunk is decoded only if it claims the size of its rows, and only codecs that
a build uses are run.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import zarr
import zarr.codecs
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from schemas.errors import StoreError
from schemas.layout import PIXEL_ARRAYS, array_specs
from schemas.limits import MAX_CHUNK_BYTES
from schemas.manifest import Manifest
from schemas.store.codecs import ROW_CODECS
from schemas.store.shards import has_plain_index

if TYPE_CHECKING:
    from zarr.abc.codec import Codec
    from zarr.core.array_spec import ArraySpec as ChunkSpec
    from zarr.core.buffer import Buffer, NDBuffer

MAX_COLUMN_ROWS = 1 << 20
"""Maximum rows of a column in one chunk."""

MAX_COLUMN_BYTES = 1 << 32
"""Maximum decoded size of a column, which stays in memory: ten million objects with 32 points take 2.6 GB."""


def checked_array(where: str, array: zarr.Array[Any], path: str, manifest: Manifest | None) -> zarr.Array[Any]:
    """Check an array, and return it with codecs that check the size of a chunk before they decode it.

    Args:
        where: The array, for messages.
        array: The array, as zarr opened it.
        path: Its path in the store.
        manifest: The manifest that the array must agree with; None for checksums, which are read even if the manifest
            is invalid.

    Raises:
        StoreError: No build writes an array with this shape, type, chunks or codecs.
    """
    metadata: Any = array.metadata
    wrong = _shape_fault(array, metadata.to_dict(), path, manifest) or _chunk_fault(array)
    if wrong:
        raise StoreError(where, wrong, "build the store again")
    bounded: Any = replace(metadata, codecs=tuple(_bounded(where, codec) for codec in metadata.codecs))
    return zarr.Array(zarr.AsyncArray(bounded, array.store_path))


def _shape_fault(array: zarr.Array[Any], metadata: dict[str, Any], path: str, manifest: Manifest | None) -> str | None:
    """Say what is wrong with the shape or type; None if nothing is."""
    if manifest is None:
        known = array.ndim == 1 and metadata["data_type"] in ("string", "int64") and array.shape[0] <= MAX_COLUMN_ROWS
        return None if known else "is not a column of checksums"
    specs = array_specs(
        manifest.tile_size_px,
        "uint8",
        manifest.point_counts,
        manifest.object_kind,
        has_sequences=bool(manifest.sequences),
    )
    spec = next((spec for spec in specs if spec.path == path), None)
    if spec is None:
        return "is not an array of a store"
    tiles, objects = manifest.complete.tiles, manifest.complete.objects
    shape = ({"tile": tiles, "object": objects, "tile_bound": tiles + 1}[spec.axis], *spec.row_shape)
    if tuple(array.shape) != shape:
        return f"has shape {_shortened(array.shape)}, but the manifest gives {shape}"
    size_bytes = math.prod(shape) * array.dtype.itemsize
    if path not in PIXEL_ARRAYS and size_bytes > MAX_COLUMN_BYTES:
        return f"would take {size_bytes} bytes of memory"
    types = ("uint8", "uint16") if path == "labels" else ("string" if spec.dtype == "str" else spec.dtype,)
    if metadata["data_type"] not in types:
        return f"has type {_shortened(metadata['data_type'])}, not {' or '.join(types)}"
    return None


def _chunk_fault(array: zarr.Array[Any]) -> str | None:
    """Say what is wrong with chunks and shards; None if they are cut only along the first axis and small enough."""
    for sides in (array.chunks, array.shards or array.chunks):
        size_bytes = math.prod(sides) * array.dtype.itemsize
        too_long = array.shards is None and sides[0] > MAX_COLUMN_ROWS
        if tuple(sides[1:]) != tuple(array.shape[1:]) or size_bytes > MAX_CHUNK_BYTES or too_long or sides[0] < 1:
            return f"has chunks of {_shortened(sides)}, which no build writes"
    if array.name.strip("/") in PIXEL_ARRAYS and array.chunks[0] != 1:
        return f"has chunks of {array.chunks[0]} rows, not 1"
    return None


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _bounded(where: str, codec: Codec) -> Codec:
    """Return the codec with a check of the stated size; codecs inside a shard get the same check."""
    if isinstance(codec, ShardingCodec):
        inner = [_bounded(where, part) for part in codec.codecs]
        if not has_plain_index(codec):
            # `schemas.store.shards` reads the index, too, and must find the same places.
            raise StoreError(where, "has an index that no build writes", "build the store again")
        return ShardingCodec(
            chunk_shape=codec.chunk_shape,
            codecs=inner,
            index_codecs=codec.index_codecs,
            index_location=codec.index_location,
        )
    if isinstance(codec, zarr.codecs.VLenUTF8Codec):
        return VLenUTF8Codec()
    for known in ROW_CODECS:
        if known.compressor and known.bounded_compressor and isinstance(codec, type(known.compressor)):
            return known.bounded_compressor.from_dict(codec.to_dict())
        if known.serializer and isinstance(codec, type(known.serializer)):
            return codec
    if isinstance(codec, BytesCodec | Crc32cCodec):
        return codec
    raise StoreError(where, f"is encoded with {type(codec).__name__}, which no build uses", "build the store again")


class VLenUTF8Codec(zarr.codecs.VLenUTF8Codec):
    """Zarr's codec for text, with a check of the stated number of names first; zarr accepts only this class name."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ChunkSpec) -> NDBuffer:
        count = int.from_bytes(chunk_bytes.to_bytes()[:4], "little")
        if count != math.prod(chunk_spec.shape):
            raise ValueError(f"a chunk of {math.prod(chunk_spec.shape)} names says that it holds {count}")
        return await super()._decode_single(chunk_bytes, chunk_spec)
