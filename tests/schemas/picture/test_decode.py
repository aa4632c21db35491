import io
import os
import re
import struct
import tracemalloc
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from schemas.errors import SourceError
from schemas.limits import MAX_ROI_PX
from schemas.picture.decode import image_header, read_image, read_mask


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(0, 99))
def test_palettized_mask_gives_its_indices_with_any_palette(labels: np.ndarray, seed: int) -> None:
    mask = Image.fromarray(labels)
    mask.putpalette(np.random.default_rng(seed).integers(0, 256, 768).tolist())
    with TemporaryDirectory() as folder:
        mask.save(Path(folder) / "m.png")
        np.testing.assert_array_equal(read_mask(Path(folder) / "m.png"), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_mask_gives_its_values(tmp_path: Path, dtype) -> None:
    labels = np.arange(300, dtype=np.uint16).reshape(15, 20).astype(dtype)
    Image.fromarray(labels).save(tmp_path / "m.png")
    read = read_mask(tmp_path / "m.png")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("color_type", [0, 3], ids=["gray", "palettized"])
def test_few_bits_a_pixel_are_not_stretched(tmp_path: Path, bits: int, color_type: int) -> None:
    values = np.arange(1 << bits, dtype=np.uint8)[None]
    (tmp_path / "m.png").write_bytes(_png(values, bits, color_type))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), values)


def _png(values: np.ndarray, bits: int, color_type: int, size: tuple[int, int] | None = None) -> bytes:
    """Write a PNG of one row by hand; Pillow writes gray only with 8 or 16 bits."""
    packed = np.packbits(((values[0][:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)).tobytes()
    width, height = size or (values.shape[1], 1)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(range(48))) if color_type == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "message"),
    [("RGB", "is a color image"), ("RGBA", "alpha channel"), ("LA", "alpha channel")],
)
def test_mask_with_color_or_alpha_is_refused(tmp_path: Path, mode: str, message: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(SourceError, match=f"m.png: .*{message}.*; save") as refused:
        read_mask(tmp_path / "m.png", wide=True)
    assert "--colors" not in str(refused.value)
    with pytest.raises(SourceError, match=f"m.png: .*{message}.*; save"):
        read_mask(tmp_path / "m.png")


def test_truncated_file_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "i.png")
    data = (tmp_path / "i.png").read_bytes()
    (tmp_path / "i.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"i.png: is damaged .*; download or export it again"):
        read_image(tmp_path / "i.png")


def test_text_file_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_text("not a picture")
    with pytest.raises(SourceError, match="is not a PNG, JPEG or TIFF image"):
        image_header(tmp_path / "i.png")


def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    side = int(MAX_ROI_PX**0.5) + 1
    (tmp_path / "bomb.png").write_bytes(_png(np.zeros((1, 8), np.uint8), 8, 0, size=(side, side)))
    with pytest.raises(SourceError, match=f"claims {side} x {side} px"):
        read_mask(tmp_path / "bomb.png")


def test_large_roi_is_not_taken_for_a_bomb(tmp_path: Path) -> None:
    # More than twice Pillow's own bound, from which on Pillow refuses a file.
    side = 14_000
    # The file is long enough to hold as many pixels.
    (tmp_path / "large.png").write_bytes(_png(np.zeros((1, 8), np.uint8), 8, 0, size=(side, side)) + bytes(30_000))
    assert image_header(tmp_path / "large.png").size == (side, side)


def test_gray_image_becomes_rgb(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 7).save(tmp_path / "i.png")
    assert read_image(tmp_path / "i.png").tolist() == [[[7, 7, 7]] * 3] * 2


def test_sixteen_bit_color_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "i.png")
    with pytest.raises(SourceError, match="not 8-bit RGB"):
        read_image(tmp_path / "i.png")


def test_size_that_no_file_of_its_length_can_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(_png(np.zeros((1, 8), np.uint8), 8, 0, size=(14_000, 14_000)))
    with pytest.raises(SourceError, match=r"claims 14000 x 14000 px, which \d+ bytes cannot hold"):
        read_mask(tmp_path / "bomb.png")


def _claiming(kind: str, side: int) -> bytes:
    """A blank image of 8 x 8 px whose header claims more."""
    file, blank = io.BytesIO(), Image.new("1" if kind == "TIFF" else "L", (8, 8))
    if kind == "TIFF":
        blank.save(file, kind, compression="group4")
        # Width and height are the tags 256 and 257, long integers or short ones.
        wide = re.compile(rb"([\x00\x01]\x01)[\x03\x04]\x00\x01\x00{3}\x08\x00{3}")
        data, changed = wide.subn(lambda tag: tag[1] + struct.pack("<HII", 4, 1, side), file.getvalue())
        assert changed == 2
        return data
    blank.save(file, kind, **({"save_all": True, "append_images": [blank]} if kind == "MPO" else {}))
    data = file.getvalue()
    # The frame's header: a marker, its length, the bits, then height and width.
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", side, side) + data[frame + 4 :]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "MPO"])
def test_picture_larger_than_its_bytes_can_hold_is_refused(tmp_path: Path, kind: str) -> None:
    data = _claiming(kind, 22_000)
    assert len(data) < 2_000
    (tmp_path / "bomb").write_bytes(data)
    with pytest.raises(SourceError, match=rf"claims 22000 x 22000 px, which {len(data)} bytes cannot hold"):
        read_image(tmp_path / "bomb")


@pytest.mark.parametrize(
    ("kind", "options"), [("TIFF", {"compression": "group4"}), ("JPEG", {"progressive": True, "optimize": True})]
)
def test_blank_picture_is_not_taken_for_a_bomb(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    Image.new("1", (4000, 4000)).save(tmp_path / "blank", kind, **options)
    assert not read_image(tmp_path / "blank").any()


def test_palette_with_transparency_gives_its_colors(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(4, dtype=np.uint8)[None])
    image.putpalette(list(range(12)))
    image.save(tmp_path / "i.png", transparency=bytes([0, 9, 255, 255]))
    assert read_image(tmp_path / "i.png").tolist() == [[[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]]
    assert read_mask(tmp_path / "i.png").tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PDF"])
def test_other_format_under_the_name_of_a_png_is_not_opened(tmp_path: Path, kind: str) -> None:
    # To read PostScript, Pillow runs Ghostscript on it.
    Image.new("L", (8, 8), 1).save(tmp_path / "roi.png", kind)
    with pytest.raises(SourceError, match="is not a PNG, JPEG or TIFF image"):
        read_mask(tmp_path / "roi.png")


def test_length_that_a_chunk_claims_takes_no_memory(tmp_path: Path) -> None:
    data = _png(np.zeros((8, 8), np.uint8), 8, 0)
    place = data.index(b"IDAT") - 4
    (tmp_path / "m.png").write_bytes(data[:place] + (2**31 - 1).to_bytes(4, "big") + data[place + 4 :])
    tracemalloc.start()
    try:
        with suppress(SourceError):
            read_mask(tmp_path / "m.png")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_tag_that_is_skipped_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    mask = Image.new("P", (8, 8), 1)
    mask.putpalette(list(range(256)) * 3)
    mask.save(path)
    # The palette, tag 320, is given a place behind the file's end.
    data = path.read_bytes()
    entry = data.index((320).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    path.write_bytes(data[: entry + 8] + (2**31).to_bytes(4, "little") + data[entry + 12 :])
    with warnings.catch_warnings(action="ignore"), pytest.raises(SourceError, match=r"m.tif: is damaged"):
        read_mask(path)


def test_tiff_whose_place_of_pixels_is_a_fraction_is_damaged(tmp_path: Path) -> None:
    """Found by fuzzing: Pillow fails with a TypeError."""
    buffer, path = io.BytesIO(), tmp_path / "mask.tif"
    mask = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    mask.putpalette([0] * 768)
    mask.save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    # The entry of tag 273, StripOffsets: 2 bytes tag, 2 bytes type, where 5 is a fraction, stored at the given place.
    entry = data.index(struct.pack("<HH", 273, 4))
    data[entry : entry + 12] = struct.pack("<HHII", 273, 5, 1, 8)
    path.write_bytes(data)
    for read in (read_image, read_mask):
        with pytest.raises(SourceError, match=r"mask.tif: is damaged"):
            read(path)


@pytest.mark.parametrize("kind", ["mask", "image"])
def test_flipped_bit_in_a_png_is_damage_and_no_other_pixel(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(0)
    values = np.repeat(np.repeat(generator.integers(0, 5, (12, 12), np.uint8), 8, 0), 8, 1)
    picture = Image.fromarray(values) if kind == "mask" else Image.fromarray(np.stack([values * 50] * 3, -1))
    read = read_mask if kind == "mask" else read_image
    path = tmp_path / "m.png"
    picture.save(path)
    whole, expected = path.read_bytes(), read(path)
    start = whole.index(b"IDAT")
    for bit in generator.integers(8 * start, 8 * len(whole), 200).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with suppress(SourceError):
            np.testing.assert_array_equal(read(path), expected)


def _tiff(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """A gray TIFF of one strip, whose rows end at whole bytes."""
    height, width = values.shape
    spread = np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
    pixels = np.packbits(spread, axis=1).tobytes()
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric)]
    entries += [(273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, height), (279, len(pixels))]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + pixels


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_of_few_bits_gives_its_values(tmp_path: Path, bits: int) -> None:
    values = (np.arange(16 * 8).reshape(8, 16) % (1 << bits)).astype(np.uint8)
    (tmp_path / "m.tif").write_bytes(_tiff(values, bits, photometric=1))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), values)


@pytest.mark.parametrize("bits", [1, 8])
def test_tiff_with_white_as_zero_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "m.tif").write_bytes(_tiff(np.ones((8, 16), np.uint8), bits, photometric=0))
    with pytest.raises(SourceError, match=r"m.tif: stores white as 0"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (6, 4)])
def test_png_of_sixteen_bits_a_channel_is_refused(tmp_path: Path, color_type: int, channels: int) -> None:
    rows = b"".join(b"\0" + bytes(2 * channels * 4) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    (tmp_path / "i.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(SourceError, match="has 16 bits per channel"):
        read_image(tmp_path / "i.png")


def test_picture_with_white_as_zero_is_not_inverted(tmp_path: Path) -> None:
    (tmp_path / "i.tif").write_bytes(_tiff(np.full((8, 16), 55, np.uint8), bits=8, photometric=0))
    assert set(np.unique(read_image(tmp_path / "i.tif"))) == {200}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("m.png", {}),
        ("m.png", {"bits": 2}),
        ("m.png", {"transparency": bytes([0, 9])}),
        ("m.tif", {}),
        ("m.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_palette_in_the_header_is_that_of_the_decoded_image(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    mask = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2))
    mask.putpalette(list(range(200, 212)))
    mask.save(tmp_path / name, **options)
    palette = image_header(tmp_path / name).palette_rgb
    with Image.open(tmp_path / name) as decoded:
        decoded.load()
        assert palette == bytes(decoded.getpalette("RGB") or ())
    assert palette[:12] == bytes(range(200, 212))


def test_header_is_read_without_the_pixels(tmp_path: Path) -> None:
    whole = _png(np.arange(4, dtype=np.uint8)[None], 8, 3)
    (tmp_path / "m.png").write_bytes(whole[: whole.index(b"IDAT") + 8])
    header = image_header(tmp_path / "m.png")
    assert header.size == (4, 1)
    assert header.palette_rgb[:48] == bytes(range(48))


@pytest.mark.timeout(20)
def test_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(SourceError, match="is a pipe or a device"):
        image_header(tmp_path / "a.png")
