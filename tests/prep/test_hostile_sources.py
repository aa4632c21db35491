"""Unexpected content of a source folder is either used correctly or refused with the name of the file."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import BcssError, SourceError
from schemas.store.store import open_store

ALL = BuildConfig(size_px=16, classes="all", ignore=())


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: arrays(dtype, st.tuples(st.integers(1, 70), st.integers(1, 70)))
    ),
    st.booleans(),
    st.sampled_from(["label", "component"]),
)
def test_any_label_image_comes_back_from_the_store(labels: np.ndarray, palettized: bool, objects) -> None:
    mask = Image.fromarray(labels)
    if palettized and labels.dtype == np.uint8:
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    with TemporaryDirectory() as folder:
        source = Path(folder)
        for name, picture in (("images", Image.new("RGB", mask.size)), ("masks", mask)):
            (source / name).mkdir()
            picture.save(source / name / "roi.png")
        config = BuildConfig(size_px=64, classes="all", ignore=(), objects=objects, min_area_px=1)
        build_store(source, source / "s.zarr", config)
        rebuilt = np.zeros(labels.shape, labels.dtype)
        for record in open_store(source / "s.zarr"):
            x, y = record.origin_xy
            height, width = (min(64, side - start) for side, start in zip(labels.shape, (y, x), strict=True))
            rebuilt[y : y + height, x : x + width] = record.labels[:height, :width]
            union = np.full((64, 64), -1)
            for class_id, segment in zip(record.class_ids, record.segments, strict=True):
                union[segment] = class_id
            np.testing.assert_array_equal(union[:height, :width], record.labels[:height, :width])
            assert (union[record.ignore] == -1).all()
        np.testing.assert_array_equal(rebuilt, labels)


def test_interlaced_png_is_read_like_any_other(write_roi, tmp_path: Path) -> None:
    labels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32).astype(np.uint8) % 5
    source = write_roi("a", labels)
    (source / "masks" / "a.png").write_bytes(_interlaced(labels))
    with Image.open(source / "masks" / "a.png") as mask:
        assert mask.info.get("interlace")
    build_store(source, tmp_path / "s.zarr", ALL)
    assert {tuple(record.origin_xy) for record in open_store(tmp_path / "s.zarr")} == {
        (0, 0),
        (16, 0),
        (0, 16),
        (16, 16),
    }
    for record in open_store(tmp_path / "s.zarr"):
        x, y = record.origin_xy
        np.testing.assert_array_equal(record.labels, labels[y : y + 16, x : x + 16])


def _interlaced(labels: np.ndarray) -> bytes:
    """Write a gray PNG in Adam7 order, which Pillow reads and does not write."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [bytes([0, *row]) for x, y, dx, dy in passes for row in labels[y::dy, x::dx].tolist() if row]
    height, width = labels.shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


def test_one_pixel_roi(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.ones((1, 1), np.uint8))
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=16))
    opened = open_store(tmp_path / "s.zarr")
    assert opened[0].segments.sum() == 1
    assert opened.prompts(0, "centroid")[1]["point_coords"].tolist() == [[0, 0]]
    assert opened[0].ignore.sum() == 16 * 16 - 1


@pytest.mark.parametrize("stem", ["with space", "Größe µm 腫瘍", "dots.in.name", "-dash", "quote'd"])
def test_file_names_may_have_any_letters(write_roi, tmp_path: Path, stem: str) -> None:
    source = write_roi(stem, np.ones((16, 16), np.uint8))
    build_store(source, tmp_path / "a store.zarr", BuildConfig(size_px=16))
    assert open_store(tmp_path / "a store.zarr")[0].frame_id == stem


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file_is_named(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.ones((16, 16), np.uint8))
    (source / "masks" / "a.png").chmod(0)
    with pytest.raises(SourceError, match=r"a.png: cannot be read; check its permissions"):
        build_store(source, tmp_path / "s.zarr", ALL)


def test_symlink_loop_and_dangling_link_are_named(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.ones((16, 16), np.uint8))
    for stem in ("b", "c"):
        Image.new("RGB", (16, 16)).save(source / "images" / f"{stem}.png")
    (source / "masks" / "b.png").symlink_to(source / "masks" / "b.png")
    (source / "masks" / "c.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(BcssError, match=r"b.png: "):
        build_store(source, tmp_path / "s.zarr", ALL)
    (source / "masks" / "b.png").unlink()
    (source / "images" / "b.png").unlink()
    with pytest.raises(BcssError, match=r"c.png: does not exist"):
        build_store(source, tmp_path / "s.zarr", ALL)
    assert not (tmp_path / "s.zarr").exists()


def test_resolution_is_read_from_the_name(write_roi, tmp_path: Path) -> None:
    labels = np.zeros((64, 96), np.uint8)
    labels[:, 48:] = 1
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, ::2] = 100
    source = write_roi("TCGA-A1-0000_MPP-0.2500", labels, image)
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=32, mpp_um=0.5))
    first, second = open_store(tmp_path / "s.zarr")
    assert (first.origin_xy, second.origin_xy) == ((0, 0), (32, 0))
    assert first.scale == (0.5, 0.5)
    assert set(np.unique(first.image)) == {50}
    np.testing.assert_array_equal(first.labels, labels[1::2, 1:64:2])
    with pytest.raises(SourceError, match=r"has 0.25 um per pixel, coarser than --mpp 0.1"):
        build_store(source, tmp_path / "t.zarr", BuildConfig(size_px=32, mpp_um=0.1))


def test_missing_resolution_is_an_error(write_roi, tmp_path: Path) -> None:
    source = write_roi("a", np.ones((16, 16), np.uint8))
    with pytest.raises(SourceError, match="states no resolution; give --source-mpp"):
        build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=16, mpp_um=0.5))


def test_tiles_with_little_tissue_are_left_out(write_roi, tmp_path: Path) -> None:
    labels = np.zeros((16, 64), np.uint8)
    labels[:, 14:32], labels[:, 32:34] = 1, 1
    source = write_roi("a", labels)
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=16, min_tissue=0.12))
    assert [record.origin_xy for record in open_store(tmp_path / "s.zarr")] == [(0, 0), (16, 0), (32, 0)]
    build_store(source, tmp_path / "t.zarr", BuildConfig(size_px=16, min_tissue=0.5))
    assert [record.origin_xy for record in open_store(tmp_path / "t.zarr")] == [(16, 0)]
