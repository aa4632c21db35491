"""Which files are found, how they are opened, and the resolution that they state."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import SourceError
from train.slide.image_source import Picture, find_sources, open_source


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


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        find_sources([tmp_path / "none.png"])
    with pytest.raises(SourceError, match="is not a file"):
        open_source(tmp_path)
