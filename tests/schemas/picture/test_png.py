"""Test that the fast decoder of RGB PNGs gives Pillow's pixels, and leaves all other pictures to Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from schemas.errors import SourceError
from schemas.picture.decode import read_image
from schemas.picture.picture_file import open_picture
from schemas.picture.png import rgb_pixels

FILTERS = {
    "none": cv2.IMWRITE_PNG_FILTER_NONE,
    "sub": cv2.IMWRITE_PNG_FILTER_SUB,
    "up": cv2.IMWRITE_PNG_FILTER_UP,
    "average": cv2.IMWRITE_PNG_FILTER_AVG,
    "Paeth": cv2.IMWRITE_PNG_FILTER_PAETH,
    "all": cv2.IMWRITE_PNG_ALL_FILTERS,
}


def fast(path: Path) -> np.ndarray | None:
    with open_picture(path) as picture, picture.image(pixels=True) as image:
        return rgb_pixels(picture, image)


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def with_right_crcs(parts: list[tuple[bytes, bytes]]) -> bytes:
    chunk = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("png")


@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    level=st.integers(0, 9),
    row_filter=st.sampled_from(list(FILTERS)),
)
def test_pixels_are_those_of_pillow(folder: Path, pixels: np.ndarray, level: int, row_filter: str) -> None:
    path = folder / "image.png"
    cv2.imwrite(
        str(path), pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_FILTER, FILTERS[row_filter]]
    )
    decoded = fast(path)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, pixels)
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize("kind", ["interlaced", "transparent color", "gray", "palette", "JPEG"])
def test_other_pictures_are_left_to_pillow(tmp_path: Path, kind: str) -> None:
    path, pixel = tmp_path / "image.png", Image.new("RGB", (1, 1), (9, 8, 7))
    buffer = io.BytesIO()
    if kind == "JPEG":
        pixel.save(buffer, "JPEG")
    else:
        mode = {"gray": "L", "palette": "P"}.get(kind, "RGB")
        pixel.convert(mode).save(buffer, "PNG", **({"transparency": (1, 2, 3)} if kind == "transparent color" else {}))
    content = buffer.getvalue()
    if kind == "interlaced":
        # The first of the seven passes of a picture of one pixel is the whole picture.
        (name, header), *others = chunks(content)
        content = with_right_crcs([(name, header[:-1] + b"\1"), *others])
    path.write_bytes(content)
    assert fast(path) is None
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_what_the_decoder_refuses_and_pillow_reads_is_read(tmp_path: Path) -> None:
    path, pixels = tmp_path / "image.png", np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    Image.fromarray(pixels).save(path)
    header, *others = chunks(path.read_bytes())
    path.write_bytes(with_right_crcs([header, header, *others]))
    assert fast(path) is None
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_pixels_that_end_early_are_damage_even_if_each_crc_is_right(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    parts = [
        (kind, data[: int(kept * len(data))] if kind == b"IDAT" else data) for kind, data in chunks(path.read_bytes())
    ]
    path.write_bytes(with_right_crcs(parts))
    with pytest.raises(SourceError, match=r"image.png: is damaged"):
        read_image(path)


def test_position_in_the_file_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (3, 2)).save(path)
    with open_picture(path) as picture, picture.image(pixels=True) as image:
        before = picture.file.tell()
        rgb_pixels(picture, image)
        assert picture.file.tell() == before
