"""Which files are found, how they are opened, and the resolution that they state."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from schemas.errors import SourceError
from train.slide.image_source import Picture, Slide, find_sources, open_source


def _write(path: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_picture_states_the_resolution_of_its_name_unless_it_is_given(tmp_path: Path) -> None:
    pixels = _write(tmp_path / "TCGA-A1_MPP-0.2500.png")
    source = open_source(tmp_path / "TCGA-A1_MPP-0.2500.png")
    assert isinstance(source, Picture)
    assert (source.size_xy, source.mpp_um, source.is_slide) == ((32, 24), 0.25, False)
    np.testing.assert_array_equal(source.read(4, 2, 10, 8, (10, 8)), pixels[2:10, 4:14])
    assert open_source(tmp_path / "TCGA-A1_MPP-0.2500.png", mpp_um=0.5).mpp_um == 0.5


def test_folders_give_their_images_in_order_and_files_come_as_given(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("b.png", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / "folder" / name).touch()
    (tmp_path / "z.svs").touch()
    found = find_sources([tmp_path / "z.svs", tmp_path / "folder"])
    assert [path.name for path in found] == ["z.svs", "a.jpg", "b.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "holds no image or slide"), (("a.png", "a.svs"), "has the same stem as")],
)
def test_folder_that_cannot_be_predicted_is_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=message):
        find_sources([tmp_path])


@pytest.mark.parametrize("name", ["...png", b"caf\xe9.png", f"{'é' * 118}.png"])
def test_name_that_results_cannot_have_is_refused(tmp_path: Path, name: str | bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.touch()
    with pytest.raises(SourceError, match="has a name that result files cannot have; rename it"):
        find_sources([path])


@pytest.mark.parametrize(("channels", "is_slide"), [(3, True), (1, False)])
def test_gray_tiled_file_is_searched_everywhere(tmp_path: Path, channels: int, is_slide: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, channels), np.uint8)
    kind = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), tile=(128, 128), photometric=kind)
    source = open_source(tmp_path / "a.tif")
    assert isinstance(source, Slide)
    assert source.is_slide == is_slide


def test_tiled_file_of_two_images_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((2, 256, 256, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(128, 128), photometric="rgb")
    with pytest.raises(SourceError, match="has 2 pages, and only the first would be read"):
        open_source(tmp_path / "a.tif")


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        find_sources([tmp_path / "none.png"])
    with pytest.raises(SourceError, match="is not a file"):
        open_source(tmp_path)
