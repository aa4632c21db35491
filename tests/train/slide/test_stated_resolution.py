"""Images and slides state their resolution and pixels by the same rules."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from schemas.errors import SourceError
from train.slide.image_source import Picture, Slide, open_source

pytest.importorskip("openslide", reason="openslide is not installed")

X_RESOLUTION, ASCII = 282, 2


@pytest.mark.parametrize(("tile", "kind"), [((16, 16), Slide), (None, Picture)])
@pytest.mark.parametrize(
    ("resolution", "unit", "mpp_um"),
    [
        ((40_000, 40_000), "CENTIMETER", 0.25),
        ((50_800, 50_800), "INCH", 0.5),
        ((20_000, 40_000), "CENTIMETER", 0.375),
        ((72, 72), "INCH", None),
        ((40_000, 40_000), "NONE", None),
    ],
)
def test_tagged_resolution_counts_unless_it_is_a_printers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tile, kind, resolution, unit, mpp_um
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.tif"
    pixels = np.zeros((32, 32, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=tile, photometric="rgb", resolution=resolution, resolutionunit=unit)
    source = open_source(path)
    assert type(source) is kind
    assert source.mpp_um == (mpp_um if mpp_um is None else pytest.approx(mpp_um))
    is_printer = resolution == (72, 72)
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        f"{path} states a resolution of 352.778 um per pixel"
    ] * is_printer
    assert open_source(path, 0.3).mpp_um == 0.3


def test_name_of_a_picture_counts_more_than_its_tag(tmp_path: Path) -> None:
    for name, mpp_um in (("a_MPP-0.2500.tif", 0.25), ("a.tif", 1.0), ("a_MPP-0.0.tif", 1.0)):
        Image.new("RGB", (8, 8)).save(tmp_path / name, dpi=(25_400, 25_400))
        assert open_source(tmp_path / name).mpp_um == pytest.approx(mpp_um)


def test_damaged_resolution_leaves_the_pixels_readable(tmp_path: Path) -> None:
    tags = ImageFileDirectory_v2()
    tags.tagtype[X_RESOLUTION] = ASCII
    tags[X_RESOLUTION] = "fine"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a.tif", tiffinfo=tags)
    source = open_source(tmp_path / "a.tif")
    assert source.mpp_um is None
    assert source.read(0, 0, 1, 1, (1, 1)).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("tile", [(16, 16), None])
@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 3)])
def test_sixteen_bits_are_refused(tmp_path: Path, tile, shape) -> None:
    photometric = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", np.full(shape, 300, np.uint16), tile=tile, photometric=photometric)
    with pytest.raises(SourceError, match="which is not 8-bit RGB; convert it"):
        open_source(tmp_path / "a.tif")
