"""Test image files that are made to break the code that reads them."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from schemas.picture import picture_file
from schemas.picture.decode import image_header, read_image, read_mask
from tests.faults.forms import forms
from tests.faults.guard import Guard, bounded_memory
from tests.faults.mutations import mutated

SMALL_BOUND_PX = 1 << 22
"""Limit on claimed pixels in these tests, low enough that an image below it fits the limit on memory."""


def use(path: Path) -> None:
    """Read a file as an image and as a mask."""
    image_header(path)
    try:
        read_mask(path)
    finally:
        read_image(path)


def valid_files() -> list[bytes]:
    """Return small files in every format that masks and images can have."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 22, (24, 20), np.uint8)
    palettized = Image.fromarray(labels)
    palettized.putpalette(generator.integers(0, 256, 768).tolist())
    pictures: list[tuple[Image.Image, str, dict[str, object]]] = [
        (palettized, "PNG", {}),
        (palettized, "TIFF", {}),
        (Image.fromarray(labels), "PNG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        (Image.fromarray(labels), "TIFF", {"compression": "tiff_lzw"}),
        (Image.fromarray(labels), "TIFF", {"compression": "tiff_adobe_deflate"}),
        (Image.fromarray(labels.astype(np.uint16) * 300), "PNG", {}),
        (Image.fromarray(labels > 10), "PNG", {}),
        (Image.fromarray(labels > 10), "TIFF", {"compression": "group4"}),
        (Image.fromarray(generator.integers(0, 256, (24, 20, 3), np.uint8)), "PNG", {}),
        (Image.fromarray(generator.integers(0, 256, (24, 20, 3), np.uint8)), "JPEG", {}),
        (Image.fromarray(generator.integers(0, 256, (24, 20, 3), np.uint8)), "JPEG", {"progressive": True}),
        (Image.fromarray(generator.integers(0, 256, (24, 20, 4), np.uint8)), "PNG", {}),
        (palettized, "GIF", {}),
    ]
    files: list[bytes] = []
    for picture, kind, options in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with the correct checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


_sides = st.sampled_from([0, 1, 3, 64, 2**14, 2**16, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(1, 200)
_headers = st.builds(
    struct.pack,
    st.just(">IIBBBBB"),
    _sides,
    _sides,
    st.sampled_from([0, 1, 2, 4, 8, 16, 255]),
    st.sampled_from([0, 2, 3, 4, 6, 9]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 1, 2]),
)
_bombs = st.sampled_from([zlib.compress(bytes(n)) for n in (0, 10, 1000, 1 << 20, 1 << 26)]) | st.binary(max_size=40)
_names = st.sampled_from([b"tRNS", b"eXIf", b"pHYs", b"gAMA", b"acTL", b"fcTL", b"fdAT", b"IEND", b"IHDR"])
_chunks = st.one_of(
    st.builds(chunk, st.just(b"IDAT"), _bombs),
    st.builds(chunk, st.just(b"PLTE"), st.binary(max_size=800)),
    st.builds(chunk, st.just(b"zTXt"), _bombs.map(lambda data: b"k\0\0" + data)),
    st.builds(chunk, st.just(b"iCCP"), _bombs.map(lambda data: b"k\0\0" + data)),
    st.builds(chunk, st.just(b"iTXt"), _bombs.map(lambda data: b"k\0\1\0\0\0" + data)),
    st.builds(chunk, _names, st.binary(max_size=60)),
    st.binary(max_size=30),
)
png_files = st.builds(
    lambda header, chunks: b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b""),
    _headers,
    st.lists(_chunks, max_size=5),
)


@pytest.mark.parametrize("inputs", forms(100, 10_000))
def test_image_files_are_read_or_refused(tmp_path: Path, inputs: int, monkeypatch, tally) -> None:
    monkeypatch.setattr(picture_file, "MAX_ROI_PX", SMALL_BOUND_PX)
    path, guard, files = tmp_path / "roi.png", Guard(tmp_path), valid_files()
    for data in files:
        path.write_bytes(data)
        guard.attempt(lambda: image_header(path))

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        guard.attempt(lambda: use(path), data[:200])

    with bounded_memory():
        for number in range(inputs // 2):
            draw = random.Random(number)
            attempt(mutated(draw.choice(files), draw))
        settings(max_examples=inputs - inputs // 2)(given(png_files)(attempt))()
    tally("hostile images and masks", guard)
