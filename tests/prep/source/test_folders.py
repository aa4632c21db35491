"""Layouts of folders that people have: suffixes, a folder for each patient, everything in one folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from prep.source.discover import RoiSource, find_rois
from prep.source.folders import Folders
from prep.source.split import default_rule
from schemas.errors import ConfigError, SourceError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _found(root: Path, folders: Folders = Folders()) -> list[tuple[str, str, str, str]]:  # noqa: B008
    def row(roi: RoiSource) -> tuple[str, str, str, str]:
        image, mask = (path.relative_to(root).as_posix() for path in roi.paths)
        return roi.frame_id, roi.patient, image, mask

    return [row(roi) for roi in find_rois(root, folders).rois]


def test_suffixes_are_no_part_of_the_name(tmp_path: Path) -> None:
    _touch(tmp_path, "imagesTr/a_0000.png", "imagesTr/a_0001.png", "labelsTr/a.png")
    folders = Folders(images="imagesTr", masks="labelsTr", image_suffix="_0000")
    assert _found(tmp_path, folders) == [("a", "a", "imagesTr/a_0000.png", "labelsTr/a.png")]


@pytest.mark.parametrize("folders", [Folders(mask_suffix="_mask"), Folders(".", ".", mask_suffix="_mask")])
def test_one_flat_folder_with_suffixes(tmp_path: Path, folders: Folders) -> None:
    _touch(tmp_path, "a.jpg", "a_mask.png", "b.tif", "b_mask.tif", "notes.txt")
    assert _found(tmp_path, folders) == [("a", "a", "a.jpg", "a_mask.png"), ("b", "b", "b.tif", "b_mask.tif")]


def test_folder_of_a_patient_names_the_patient(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    _touch(inside, "images/p1/x.png", "images/p1/y.png", "images/p2/x.png")
    _touch(inside, "masks/p1/x.png", "masks/p1/y.png", "masks/p2/x.png")
    assert _found(inside) == [
        ("p1_x", "p1", "images/p1/x.png", "masks/p1/x.png"),
        ("p2_x", "p2", "images/p2/x.png", "masks/p2/x.png"),
        ("y", "p1", "images/p1/y.png", "masks/p1/y.png"),
    ]
    for patient in ("p1", "TCGA-A2-A0D2-x"):
        _touch(outside, f"{patient}/images/x.png", f"{patient}/masks/x.png")
    assert _found(outside) == [
        ("TCGA-A2-A0D2-x_x", "TCGA-A2-A0D2", "TCGA-A2-A0D2-x/images/x.png", "TCGA-A2-A0D2-x/masks/x.png"),
        ("p1_x", "p1", "p1/images/x.png", "p1/masks/x.png"),
    ]


def test_suffixes_in_folders_of_patients(tmp_path: Path) -> None:
    _touch(tmp_path, "p1/x.png", "p1/x_mask.png", "p2/x.png", "p2/x_mask.png", ".hidden/x.png")
    assert _found(tmp_path, Folders(mask_suffix="_mask")) == [
        ("p1_x", "p1", "p1/x.png", "p1/x_mask.png"),
        ("p2_x", "p2", "p2/x.png", "p2/x_mask.png"),
    ]


def test_all_problems_are_in_one_error_up_to_ten(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"images/{number:02}.png" for number in range(14)), "masks/03.png", "masks/z.png")
    with pytest.raises(SourceError) as caught:
        find_rois(tmp_path)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{tmp_path}: has 14 problems, of which 10 are shown; fix them, then repeat the command"
    assert len(lines) == 10
    assert all(f"{number:02}.png: has no mask " in line for number, line in zip((0, 1, 2, 4, 5), lines, strict=False))


def test_files_without_a_partner_are_skipped_on_demand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/c.png")
    assert [row[0] for row in _found(tmp_path, Folders(unpaired="skip"))] == ["a"]
    assert "files without a partner are left out: 2, such as " in caplog.text
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(SourceError, match="has 3 problems"):
        find_rois(tmp_path, Folders(unpaired="skip"))


def test_suffix_that_is_missing_is_suggested(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.png", "masks/a_seg.png")
    with pytest.raises(SourceError, match="give --mask-suffix _seg if masks end in it"):
        find_rois(tmp_path)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    _touch(tmp_path, "images/p1/x.png", "masks/p1/x.png")
    (tmp_path / "images" / "p1" / "again").symlink_to(tmp_path / "images")
    assert len(_found(tmp_path)) == 1


def test_two_rois_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        _touch(tmp_path / folder, "a_b/x.png", "a/b/x.png")
    with pytest.raises(SourceError, match=r"has the same name as .*, which is a_b_x; rename one of the two"):
        find_rois(tmp_path)


def test_nested_folders_of_one_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known, unknown = tmp_path / "known", tmp_path / "unknown"
    for slide in ("s1", "s2"):
        for folder in ("images", "masks"):
            _touch(known, f"TCGA-A2-A0D2/{slide}/{folder}/x.png")
            _touch(unknown, f"anna/{slide}/{folder}/x.png")
    assert {patient for _, patient, _, _ in _found(known)} == {"TCGA-A2-A0D2"}
    assert not caplog.records
    assert {patient for _, patient, _, _ in _found(unknown)} == {"anna/s1", "anna/s2"}
    assert "2 nested folders, such as anna/s1, each count as a patient; if some belong to one" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root lists every folder")
def test_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "images/anna/x.png", "masks/anna/x.png", "images/bob/y.png", "masks/bob/y.png")
    for folder in ("images", "masks"):
        if os.geteuid() == 0:
            os.chown(tmp_path / folder / "bob", 12345, 12345)
        (tmp_path / folder / "bob").chmod(0o700 if os.geteuid() == 0 else 0)
    # Root may list every folder, unless it gives up that right.
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*without, sys.executable, "-m", "prep.cli", "build", tmp_path, "--out", tmp_path / "s.zarr"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    for folder in ("images", "masks"):
        (tmp_path / folder / "bob").chmod(0o700)
    assert "images/bob: cannot be listed (Permission denied)" in ran.stderr


def test_files_of_another_kind_are_named_in_one_flat_folder_and_among_class_masks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _touch(tmp_path / "flat", "a.png", "a_mask.png", "d.bmp", "d_mask.bmp")
    find_rois(tmp_path / "flat", Folders(mask_suffix="_mask"))
    assert "2 entries are not" in caplog.text
    caplog.clear()
    _touch(tmp_path / "two", "images/a.png", "masks/a.png", "classes/a.png", "classes/b.bmp")
    find_rois(tmp_path / "two", Folders(class_masks="classes"))
    assert "classes: 1 entries are not" in caplog.text


@pytest.mark.parametrize("names", [(), ("deep/images/a.txt", "deep/masks/a.txt")])
def test_source_without_any_pair_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    _touch(tmp_path, *names)
    with pytest.raises(SourceError, match="contains no image with a mask; put them in images/ and masks/"):
        find_rois(tmp_path, Folders() if names else Folders(mask_suffix="_mask"))


@pytest.mark.parametrize("inside", [True, False])
def test_folders_named_as_splits_are_the_splits(tmp_path: Path, inside: bool) -> None:
    for split in ("train", "Valid", "test"):
        for name in ("x.png", "y.png"):
            for folder in ("images", "masks"):
                _touch(tmp_path, f"{folder}/{split}/{name}" if inside else f"{split}/{folder}/{name}")
    rois = find_rois(tmp_path).rois
    assert {(roi.frame_id, roi.patient, roi.split) for roi in rois} == {
        (f"{split}_{name}", f"{split}_{name}", wanted)
        for split, wanted in (("train", "train"), ("Valid", "val"), ("test", "test"))
        for name in ("x", "y")
    }
    rule = default_rule(rois)
    assert rule.method == "given by the table or by folders"
    assert rule(rois) == {roi.patient: roi.split for roi in rois}


def test_a_patient_in_two_folders_of_splits_is_refused(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        *(f"{folder}/{split}/anna/{split}.png" for folder in ("images", "masks") for split in ("train", "test")),
    )
    rois = find_rois(tmp_path).rois
    with pytest.raises(
        ConfigError, match=r"patient anna: is in the splits test and train \(train\); .* give --split-file"
    ):
        default_rule(rois)(rois)
    # One folder alone, or another beside them, says nothing of splits.
    _touch(tmp_path, "images/bob/z.png", "masks/bob/z.png")
    assert {(roi.patient, roi.split) for roi in find_rois(tmp_path).rois} == {
        ("train", None),
        ("test", None),
        ("bob", None),
    }


def test_resolution_in_the_tags_of_a_tiff_is_known(tmp_path: Path) -> None:
    for name, per_cm in (("a", 20_000), ("b", 40), ("c_MPP-0.2500", 20_000)):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            shape = (8, 8, 3) if folder == "images" else (8, 8)
            path = tmp_path / folder / f"{name}.tif"
            tifffile.imwrite(path, np.ones(shape, np.uint8), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    # 250 um per pixel are the 100 dpi of a printer, and the name of a file comes first.
    assert [roi.mpp_um for roi in find_rois(tmp_path).rois] == [pytest.approx(0.5), None, 0.25]
