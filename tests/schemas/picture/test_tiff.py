"""Masks in TIFFs of every kind: each is read like tifffile reads it, or refused with a message that says what it is."""

from __future__ import annotations

import io
import re
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tifffile
from PIL import Image

from schemas.errors import SourceError
from schemas.picture.decode import image_header, read_image, read_mask

pytest.importorskip("imagecodecs", reason="the small extra is not installed; it writes and reads most compressions")

KINDS = [f"{sign}int{bits}" for sign, bits in product(("", "u"), (8, 16, 32, 64))]
COMPRESSIONS = [None, "zlib", "lzw", "packbits", "zstd", "lzma"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_integers_of_every_kind_are_read_as_they_are(tmp_path: Path, order: str, kind: str, compression: str) -> None:
    labels = (np.arange(24 * 31).reshape(24, 31) % 100).astype(kind)
    # tifffile writes no differences of 64-bit integers.
    has_predictor = compression in ("zlib", "lzw", "zstd") and not kind.endswith("64")
    for predictor in (False, True) if has_predictor else (False,):
        path = tmp_path / f"{predictor}.tif"
        options: dict[str, Any] = {"byteorder": order, "compression": compression, "predictor": predictor or None}
        tifffile.imwrite(path, labels, photometric="minisblack", **options)
        np.testing.assert_array_equal(tifffile.imread(path), labels)
        read = read_mask(path)
        assert read.dtype in (np.uint8, np.uint16)
        np.testing.assert_array_equal(read, labels)
        header = image_header(path)
        assert header.size == (31, 24)
        assert header.wide == (read.dtype == np.uint16)


@pytest.mark.parametrize("kind", ["int32", "uint64"])
def test_largest_code_is_65535(tmp_path: Path, kind: str) -> None:
    labels = np.array([[0, 65535]], kind)
    tifffile.imwrite(tmp_path / "m.tif", labels)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), labels)
    tifffile.imwrite(tmp_path / "m.tif", labels + 1)
    with pytest.raises(SourceError, match=r"m.tif: has values beyond 16 bits"):
        read_mask(tmp_path / "m.tif")
    if kind == "int32":
        tifffile.imwrite(tmp_path / "m.tif", labels - 1)
        with pytest.raises(SourceError, match=r"m.tif: has values beyond 16 bits"):
            read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_floats_are_named(tmp_path: Path, kind: str) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((8, 8), kind))
    with pytest.raises(SourceError, match=rf"m.tif: holds floating-point numbers of {kind[5:]} bits, but a mask"):
        read_mask(tmp_path / "m.tif")
    with pytest.raises(SourceError, match=r"floating-point numbers|has mode F, which is not 8-bit RGB"):
        read_image(tmp_path / "m.tif")


@pytest.mark.parametrize(("compression", "name"), [("jpeg", "JPEG"), ("jpeg2000", "JPEG 2000"), ("webp", "WebP")])
def test_lossy_mask_is_refused(tmp_path: Path, compression: str, name: str) -> None:
    pixels = np.zeros((32, 32, 3) if compression == "webp" else (32, 32), np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", pixels, compression=compression)
    with pytest.raises(SourceError, match=rf"m.tif: is compressed with {name}, which can change class codes"):
        read_mask(tmp_path / "m.tif")


def test_jpeg_under_the_name_of_a_png_is_refused(tmp_path: Path) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "m.png", "JPEG")
    with pytest.raises(SourceError, match=r"m.png: is a JPEG, which changes class codes along every edge; save"):
        read_mask(tmp_path / "m.png")


def _saved(path: Path, pages: list[np.ndarray], kind: str = "<", **options: list[int]) -> Path:
    order: Any = kind[0]
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=kind.endswith("big")) as writer:
        for number, page in enumerate(pages):
            of_page: dict[str, Any] = {name: value[number] for name, value in options.items()}
            writer.write(page, metadata=None, **of_page)
    return path


@pytest.mark.parametrize("kind", ["<", ">", "<big"])
def test_file_of_several_pictures_is_refused_with_their_number(tmp_path: Path, kind: str) -> None:
    page = np.zeros((64, 64), np.uint8)
    several = _saved(tmp_path / "several.tif", [page, page + 1, page + 2], kind)
    small = page[::4, ::4]
    thumbnail = _saved(tmp_path / "thumbnail.tif", [small, page], kind, subfiletype=[1, 0])
    unmarked = _saved(tmp_path / "unmarked.tif", [small, page], kind)
    smaller_first = "has 2 pages, and the first is a smaller version of another"
    for path, said in ((several, "has 3 pages"), (thumbnail, smaller_first), (unmarked, "has 2 pages")):
        for read in (read_mask, read_image, image_header):
            with pytest.raises(SourceError, match=rf"{path.name}: {said}.*; save .* in its own file"):
                read(path)


def test_imagej_stack_of_one_page_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "imagej.tif", np.zeros((5, 16, 16), np.uint8), imagej=True)
    (tmp_path / "imagej.tif").write_bytes(_one_page_of(tmp_path / "imagej.tif"))
    with pytest.raises(SourceError, match="is an ImageJ stack of 5 images"):
        read_mask(tmp_path / "imagej.tif")


def _one_page_of(path: Path) -> bytes:
    """Keep the first page's tags alone, as ImageJ writes stacks of more than 4 GB."""
    with tifffile.TiffFile(path) as tiff:
        page = cast("Any", tiff.pages.first)
        description, first = page.description, page.asarray()
    kept = io.BytesIO()
    tifffile.imwrite(kept, first, description=description, metadata=None)
    return kept.getvalue()


@pytest.mark.parametrize("kind", ["<", ">", "<big"])
@pytest.mark.parametrize("marked", [False, True])
def test_pyramid_gives_its_full_resolution(tmp_path: Path, marked: bool, kind: str) -> None:
    page = (np.arange(65 * 90) % 7).reshape(65, 90).astype(np.uint8)
    levels = [page, page[::2, ::2], page[::4, ::4]]
    path = _saved(tmp_path / "p.tif", levels, kind, subfiletype=[0, int(marked), int(marked)])
    np.testing.assert_array_equal(read_mask(path), page)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_image_is_turned_as_its_tag_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16] = 200
    stored[16:, :16, 1] = 100
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"i{suffix}"
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    Image.fromarray(stored).save(path, exif=exif, **options)
    # The table of the EXIF standard: on which side the first row and the first column are shown.
    shown = [
        stored,
        stored[:, ::-1],
        stored[::-1, ::-1],
        stored[::-1],
        stored.swapaxes(0, 1),
        np.rot90(stored, -1),
        np.rot90(stored, 2).swapaxes(0, 1),
        np.rot90(stored),
    ][orientation - 1]
    assert np.abs(read_image(path).astype(int) - shown).max() <= (3 if suffix == ".jpg" else 0)
    header = image_header(path)
    assert (header.size, header.turned) == ((shown.shape[1], shown.shape[0]), orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png8", "png16", "tif8", "tif64"])
def test_mask_is_turned_like_its_image(tmp_path: Path, kind: str, orientation: int) -> None:
    stored = np.arange(15).reshape(3, 5)
    path, dtype = tmp_path / f"m.{kind[:3]}", {"8": np.uint8, "16": np.uint16, "64": np.int64}[kind[3:]]
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind.startswith("png"):
        Image.fromarray(stored.astype(dtype)).save(path, exif=exif)
    else:
        tifffile.imwrite(path, stored.astype(dtype), metadata=None, extratags=[(274, 3, 1, orientation, True)])
    Image.fromarray(stored.astype(np.uint8)).save(tmp_path / "i.png", exif=exif)
    image = read_image(tmp_path / "i.png")[..., 0]
    np.testing.assert_array_equal(read_mask(path), image)
    assert image_header(path).size == image_header(tmp_path / "i.png").size == (image.shape[1], image.shape[0])


def test_metadata_that_pillow_warns_of_is_logged_and_the_pixels_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 9, 9)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    # An EXIF block that says it has five entries, and has one.
    cut = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0"
    (tmp_path / "i.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + (len(cut) + 2).to_bytes(2, "big") + cut + jpeg[2:])
    assert read_image(tmp_path / "i.jpg").shape == (16, 16, 3)
    assert re.search(r"i.jpg: its metadata is faulty \(Corrupt EXIF data.*its pixels are read", caplog.text)


def test_large_color_profile_is_no_damage(tmp_path: Path) -> None:
    profile = np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8).tobytes()
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "i.png", icc_profile=profile)
    assert read_image(tmp_path / "i.png")[0, 0].tolist() == [1, 2, 3]
