"""Side files that name the ROIs of a data set otherwise than its folder does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prep.source.discover import RoiSource, find_rois
from prep.source.folders import Folders
from prep.source.split import file_patients, file_split
from schemas.errors import ConfigError
from tests.conftest import WriteRoi

STEMS = [f"{patient}_roi{number}" for patient in ("anna", "bert", "dora") for number in (1, 2)]


@pytest.fixture
def source(write_roi: WriteRoi) -> Path:
    for stem in STEMS[:-1]:
        write_roi(stem, np.ones((8, 8), np.uint8))
    return write_roi(STEMS[-1], np.ones((8, 8), np.uint8))


def _patients(folder: Path, names: list[str]) -> dict[str, str]:
    path = folder / "patients.csv"
    path.write_text("frame_id,patient\n" + "".join(f"{name},{name.split('_')[0]}\n" for name in names))
    return file_patients(path)


def test_names_with_an_extension_count_as_their_stem(source: Path, tmp_path: Path) -> None:
    named = [f"{stem}.png" if number % 2 else stem for number, stem in enumerate(STEMS)]
    rois = find_rois(source, patients=_patients(tmp_path, named)).rois
    assert {roi.frame_id: roi.patient for roi in rois} == {stem: stem.split("_")[0] for stem in STEMS}


def test_roi_that_the_table_of_patients_does_not_name_is_an_error_with_the_nearest_name(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match="--patients: does not name dora_roi2; the nearest name in it is Dora_roi2; name each ROI as"
    ):
        find_rois(source, patients=_patients(tmp_path, [*STEMS[:-1], "Dora_roi2"]))
    with pytest.raises(ConfigError, match="names none of the 6 ROIs, such as anna_roi1"):
        find_rois(source, patients=_patients(tmp_path, ["x", "y"]))


def test_lines_that_name_no_roi_are_counted(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    find_rois(source, patients=_patients(tmp_path, [*STEMS, "w", "x", "y", "z"]))
    assert "--patients: lines that name no ROI of this data set: 4, such as w, x, y" in caplog.text


def test_split_file_is_compared_both_ways_too(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rois: list[RoiSource] = find_rois(source, patients=_patients(tmp_path, STEMS)).rois
    path = tmp_path / "split.csv"
    path.write_text("name,split\nanna_roi1.png,train\nanna_roi2.tif,train\nbert,val\ndora,test\nemil,train\n")
    assert file_split(rois, path) == {"anna": "train", "bert": "val", "dora": "test"}
    assert "split.csv: lines that name no ROI of this data set: 1, such as emil" in caplog.text
    path.write_text("name,split\nanna_roi1,train\nanna-roi2,train\nbert,val\ndora,test\n")
    with pytest.raises(ConfigError, match="does not name anna_roi2; the nearest name in it is anna-roi2"):
        file_split(rois, path)


def test_two_lines_of_one_roi_must_agree(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    lines = "".join(f"{stem},{stem.split('_')[0]}\n" for stem in STEMS)
    path.write_text(f"frame_id,patient\n{lines}anna_roi1.png,anna\n")
    assert find_rois(source, patients=file_patients(path)).rois[0].patient == "anna"
    path.write_text(f"frame_id,patient\n{lines}anna_roi1.png,bert\n")
    with pytest.raises(ConfigError, match=r"anna_roi1\.png: has other values than anna_roi1: bert and anna; keep one"):
        find_rois(source, patients=file_patients(path))


def test_names_of_files_count_as_those_of_their_rois(write_roi: WriteRoi, tmp_path: Path) -> None:
    source = write_roi("a", np.ones((8, 8), np.uint8))
    (source / "images" / "a.png").rename(source / "images" / "a_0000.png")
    (tmp_path / "patients.csv").write_text("frame_id,patient\na_0000.png,anna\n")
    known = file_patients(tmp_path / "patients.csv")
    (roi,) = find_rois(source, Folders(image_suffix="_0000"), known).rois
    assert (roi.frame_id, roi.patient) == ("a", "anna")


def test_split_file_may_name_files_whose_names_end_in_a_suffix(tmp_path: Path, write_roi: WriteRoi) -> None:
    source = write_roi("anna", np.ones((8, 8), np.uint8))
    (source / "images" / "anna.png").rename(source / "images" / "anna_0000.png")
    path = tmp_path / "split.csv"
    path.write_text("frame_id,split\nanna_0000.png,val\n")
    rois = find_rois(source, Folders(image_suffix="_0000")).rois
    assert file_split(rois, path, ("_0000", "")) == {"anna": "val"}
