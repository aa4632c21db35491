"""Results never replace the images and prompts that they were made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigError
from train.choices import RESULT_FORMATS
from train.results.done_record import DoneRecord, ImageSummary, write_record
from train.results.out_folder import check_nothing_foreign, check_out_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images, beside a link to it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for name in ("a.png", "b.png", "a.geojson", "boxes.csv"):
        (tmp_path / "data" / name).touch()
    return tmp_path


def test_results_do_not_go_among_images(folder: Path) -> None:
    images = [folder / "data" / name for name in ("a.png", "b.png")]
    for out in ("data", "link"):
        for some in (images, images[:1]):
            with pytest.raises(ConfigError, match="is the folder of the images"):
                check_out_folder(folder / out, some, None)
    check_out_folder(folder / "out", images, None)


def test_results_do_not_replace_prompts(folder: Path) -> None:
    image = [folder / "slides" / "a.svs"]
    for prompts in ("data/a.geojson", "link/a.geojson", "data"):
        with pytest.raises(ConfigError, match="is the folder of the prompts"):
            check_out_folder(folder / "data", image, folder / prompts)
    check_out_folder(folder / "data", image, folder / "data" / "boxes.csv")
    check_out_folder(folder / "out", image, folder / "data" / "a.geojson")


@pytest.mark.parametrize("name", ["a.geojson", "a.csv", "a.labels.png", "a.overlay.jpg", "a.coco.json", "index.html"])
def test_files_that_no_prediction_wrote_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"{name}: is in the way, and no earlier prediction wrote it"):
        check_nothing_foreign(tmp_path, Path("x/a.png"), RESULT_FORMATS)
    check_nothing_foreign(tmp_path, Path("x/b.png"), ("csv",))
    summary = ImageSummary(name="a", objects=0, classes={}, empty=0, seconds=1, pixels=1, files=(name,))
    write_record(tmp_path, DoneRecord(digest="", summary=summary))
    check_nothing_foreign(tmp_path, Path("x/a.png"), RESULT_FORMATS)
