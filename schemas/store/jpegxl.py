"""A Zarr v3 codec for small stores: lossless JPEG XL with the imagecodecs package, one image in each chunk.

If bcss-sam2 is installed, plain zarr finds the codec through the entry point group `zarr.codecs`.
Source: ISO/IEC 18181-1, JPEG XL.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from schemas.errors import StoreError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

CODEC_NAME = "bcss.jpegxl"

EFFORT = 2
"""Effort of the encoder: a higher one saves a few percent and takes several times as long; benchmarks/results.md."""


@dataclass(frozen=True)
class JpegXlCodec(ArrayBytesCodec):
    """Encodes chunks of uint8 (1, H, W, 3) as lossless JPEG XL."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JpegXlCodec:  # noqa: ARG003 - nothing to configure
        """Read the codec's metadata."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Write the codec's metadata."""
        return {"name": CODEC_NAME, "configuration": {}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:  # noqa: ARG002
        """Always raise an error, because encoded sizes differ from chunk to chunk."""
        raise StoreError(CODEC_NAME, "has no fixed size", "use it without a codec that needs one")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        pixels = np.empty(chunk_spec.shape, np.uint8)
        await asyncio.to_thread(decode_jpegxl, chunk_data.to_bytes(), pixels)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        pixels = chunk_data.as_numpy_array()[0]
        return chunk_spec.prototype.buffer.from_bytes(await asyncio.to_thread(encode_jpegxl, pixels))


def encode_jpegxl(pixels: np.ndarray) -> bytes:
    """Encode an image.

    Args:
        pixels: uint8 (H, W, 3), RGB.
    """
    codecs: Any = _imagecodecs()
    # One thread: a build has as many processes as there are cores, and bytes must not depend on threads.
    return bytes(codecs.jpegxl_encode(np.ascontiguousarray(pixels), lossless=True, effort=EFFORT, numthreads=1))


def decode_jpegxl(data: bytes | memoryview, row: np.ndarray) -> None:
    """Decode an image into a row; an image of another size is refused before memory is allocated for it.

    Args:
        data: The encoded image.
        row: uint8 (1, H, W, 3) or (H, W, 3), to be filled.

    Raises:
        ValueError: The data is not a JPEG XL image of this size.
    """
    codecs: Any = _imagecodecs()
    try:
        codecs.jpegxl_decode(data, numthreads=1, out=row.reshape(row.shape[-3:]))
    except codecs.JpegxlError as error:
        # zarr's own codecs raise ValueError, too, so a reader reports all damage alike.
        raise ValueError(f"not a JPEG XL image: {error}") from error


def _imagecodecs() -> object:
    try:
        import imagecodecs
    except ImportError as error:
        raise StoreError(
            "a store with --codec small", "needs the imagecodecs package", "pip install 'bcss-sam2[small]'"
        ) from error
    return imagecodecs
