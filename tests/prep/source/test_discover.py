from pathlib import Path

import pytest

from prep.source.discover import find_rois
from schemas.errors import SourceError

BARCODE = "TCGA-A2-A0D2-DX1_xmin45749_ymin25055_MPP-0.2500"


def _touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_pairs_are_sorted_and_carry_patient_and_institution(tmp_path: Path) -> None:
    _touch(tmp_path / "images", "zoo.jpg", f"{BARCODE}.png", ".DS_Store", "notes.txt")
    _touch(tmp_path / "masks", "zoo.png", f"{BARCODE}.png")
    found = find_rois(tmp_path).rois
    assert [(roi.frame_id, roi.patient, roi.institution) for roi in found] == [
        (BARCODE, "TCGA-A2-A0D2", "A2"),
        ("zoo", "zoo", ""),
    ]
    assert found[1].image_path.name == "zoo.jpg"


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (["a.png", "b.png"], ["a.png"], "b.png: has no mask .*; add the mask"),
        (["a.png"], ["a.png", "b.png"], "b.png: has no image .*; add the image"),
        ([], ["a.png"], "images: contains no .png"),
        (["a.png", "a.jpg"], ["a.png"], "a.png: has the same stem as a.jpg"),
    ],
)
def test_file_without_a_partner_is_named(tmp_path: Path, images, masks, message) -> None:
    _touch(tmp_path / "images", *images)
    _touch(tmp_path / "masks", *masks)
    with pytest.raises(SourceError, match=message):
        find_rois(tmp_path)


def test_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="images: is not a folder; name the folders"):
        find_rois(tmp_path)


def test_barcode_in_lower_case_is_recognized(tmp_path: Path) -> None:
    _touch(tmp_path / "images", "tcga-a2-a0d2-dx1.png")
    _touch(tmp_path / "masks", "tcga-a2-a0d2-dx1.png")
    (found,) = find_rois(tmp_path).rois
    assert (found.patient, found.institution) == ("TCGA-A2-A0D2", "A2")


def test_resolution_of_zero_is_unknown(tmp_path: Path) -> None:
    _touch(tmp_path / "images", "a_MPP-0.png")
    _touch(tmp_path / "masks", "a_MPP-0.png")
    (found,) = find_rois(tmp_path).rois
    assert found.mpp_um is None


def test_skipped_files_and_unknown_patients_are_logged(tmp_path: Path, caplog) -> None:
    _touch(tmp_path / "images", "p1_a.png", "p1_b.png", "p1_c.bmp", ".DS_Store")
    _touch(tmp_path / "masks", "p1_a.png", "p1_b.png")
    rois = find_rois(tmp_path).rois
    assert [roi.patient for roi in rois] == ["p1_a", "p1_b"]
    assert "images: 1 entries are not .png, .jpg" in caplog.text
    assert "such as p1_c.bmp" in caplog.text
    assert "2 ROIs, such as p1_a, have no TCGA barcode" in caplog.text
    caplog.clear()
    assert [roi.patient for roi in find_rois(tmp_path, patients={"p1_a": "p1", "p1_b": "p1"}).rois] == ["p1", "p1"]
    assert "barcode" not in caplog.text


def test_absent_source_names_the_sample_command(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"BCSS: is not a folder; name the folder .*sample"):
        find_rois(tmp_path / "BCSS")
