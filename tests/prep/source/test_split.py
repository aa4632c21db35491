import csv
from pathlib import Path

import numpy as np
import pytest

from prep.source.discover import RoiSource, find_rois
from prep.source.split import (
    BCSS_TEST_INSTITUTIONS,
    bcss_split,
    default_rule,
    file_patients,
    file_split,
    fraction_split,
    generic_split,
)
from schemas.errors import ConfigError
from schemas.manifest import SPLITS


def _rois(*names: str) -> list[RoiSource]:
    return [RoiSource(name, Path(name), Path(name), name[:12], name[5:7]) for name in names]


def _other(number: int) -> list[RoiSource]:
    """Two ROIs of one patient, named otherwise than in TCGA."""
    return [RoiSource(f"{number}{c}", Path(c), Path(c), f"p{number}", "") for c in "ab"]


def test_all_of_bcss_is_divided_as_the_published_pipeline_did(real_data: Path) -> None:
    with (real_data / "meta" / "roiBounds_BaseMagnification.csv").open() as file:
        names = [row[""] for row in csv.DictReader(file)]
    splits = bcss_split(_rois(*names))
    assert len(names) == 151
    rest = sorted(name[:12] for name in names if name[5:7] not in BCSS_TEST_INSTITUTIONS)
    # The published lists come from a shuffle of the sorted names under numpy's legacy seed.
    np.random.seed(42)
    np.random.shuffle(rest)
    assert {name for name, split in splits.items() if split == "train"} == set(rest[:85])
    assert {name for name, split in splits.items() if split == "val"} == set(rest[85:])
    assert sum(split == "test" for split in splits.values()) == 45


def test_train_is_never_empty() -> None:
    assert bcss_split(_rois("TCGA-A1-0000")) == {"TCGA-A1-0000": "train"}
    assert "train" in bcss_split(_rois("TCGA-OL-0000")).values()
    two = bcss_split(_rois("TCGA-A1-0000", "TCGA-OL-0000"))
    assert two == {"TCGA-A1-0000": "train", "TCGA-OL-0000": "test"}


def test_two_rois_of_a_patient_stay_together(sample_source: Path) -> None:
    rois = find_rois(sample_source).rois
    twice = [*rois, *(RoiSource(f"{r.frame_id}b", r.image_path, r.mask_path, r.patient, r.institution) for r in rois)]
    assert bcss_split(twice) == bcss_split(rois)


def test_fractions_are_drawn_by_patient_and_seed() -> None:
    rois = [roi for n in range(40) for roi in _rois(f"TCGA-A1-{n:04d}", f"TCGA-A1-{n:04d}-second")]
    splits = fraction_split(rois, (0.5, 0.25, 0.25), seed=1)
    assert [sum(s == name for s in splits.values()) for name in ("train", "val", "test")] == [20, 10, 10]
    assert splits == fraction_split(rois[::-1], (0.5, 0.25, 0.25), seed=1)
    assert splits != fraction_split(rois, (0.5, 0.25, 0.25), seed=2)
    assert fraction_split(_rois("TCGA-A1-0000"), (0.1, 0.1, 0.8), seed=0) == {"TCGA-A1-0000": "train"}


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.5, 0.5), (0.5, float("nan"), 0.5)])
def test_impossible_fractions_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="three shares that sum to 1"):
        fraction_split(_rois("TCGA-A1-0000"), shares, 0)


@pytest.mark.parametrize("column", ["patient", "frame_id", "name"])
def test_split_file_names_patients_or_rois(tmp_path: Path, column: str) -> None:
    (tmp_path / "s.csv").write_text(f"{column},split\nTCGA-A1-0000,train\nTCGA-A1-0001,test\nTCGA-XX-0000,val\n")
    splits = file_split(_rois("TCGA-A1-0000", "TCGA-A1-0001"), tmp_path / "s.csv")
    assert splits == {"TCGA-A1-0000": "train", "TCGA-A1-0001": "test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,split\nTCGA-A1-0000,train\n", "does not name TCGA-A1-0001"),
        ("patient,split\nTCGA-A1-0000,train\nTCGA-A1-0001,dev\n", "has split 'dev'"),
        ("patient,split\nTCGA-A1-0000,train\nTCGA-A1-0000,test\n", "with two splits"),
        ("who,split\nTCGA-A1-0000,train\n", "lacks a column"),
        ("", "lacks a column"),
    ],
)
def test_split_files_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        file_split(_rois("TCGA-A1-0000", "TCGA-A1-0001"), tmp_path / "s.csv")
    assert "s.csv" in str(caught.value)


def test_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("frame_id,split\nTCGA-A1-0000-a,train\nTCGA-A1-0000-b,test\n")
    with pytest.raises(ConfigError, match="puts patient TCGA-A1-0000 into train and test"):
        file_split(_rois("TCGA-A1-0000-a", "TCGA-A1-0000-b"), tmp_path / "s.csv")


def test_split_file_with_both_names_keeps_a_patient_together(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("frame_id,patient,split\nr1,p1,train\nr2,p2,test\n")
    assert file_split(_rois("r1", "r2"), path) == {"r1": "train", "r2": "test"}
    path.write_text("frame_id,patient,split\nr1,p1,train\nr2,p1,test\n")
    with pytest.raises(ConfigError, match="names p1 with two splits"):
        file_split(_rois("r1", "r2"), path)


@pytest.mark.parametrize("column", ["frame_id", "name"])
def test_rois_of_a_named_patient_are_in_one_split(tmp_path: Path, column: str) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(12):
            (tmp_path / folder / f"r{number}.png").touch()
    lines = [f"r{number},p{number // 4}" for number in range(12)]
    (tmp_path / "p.csv").write_text("\n".join([f"{column},patient", *lines]))
    rois = find_rois(tmp_path, patients=file_patients(tmp_path / "p.csv")).rois
    assert sorted(fraction_split(rois, (0.5, 0.25, 0.25), seed=0)) == ["p0", "p1", "p2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame_id,split\na,train\n", "lacks a column"),
        ("frame_id,patient\na,p\na,q\n", "gives a two patients"),
        ("frame_id,patient\na,\n", "gives a no patient"),
        ("", "lacks a column"),
    ],
)
def test_patient_files_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        file_patients(tmp_path / "p.csv")


def test_a_cohort_may_be_all_test(tmp_path: Path) -> None:
    rois = _rois("TCGA-A1-0000", "TCGA-A1-0001", "TCGA-A1-0002")
    assert set(fraction_split(rois, (0, 0, 1), seed=0).values()) == {"test"}
    assert sorted(fraction_split(rois, (0, 0.34, 0.66), seed=0).values()) == ["test", "test", "val"]
    (tmp_path / "s.csv").write_text("patient,split\nTCGA-A1-0000,test\nTCGA-A1-0001,test\n")
    assert set(file_split(rois[:2], tmp_path / "s.csv").values()) == {"test"}


@pytest.mark.parametrize(
    ("patients", "expected"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (6, (4, 1, 1)), (20, (14, 3, 3))]
)
def test_other_data_is_divided_70_15_15(patients: int, expected: tuple[int, ...]) -> None:
    rois = [roi for n in range(patients) for roi in _other(n)]
    splits = default_rule(rois)(rois)
    assert tuple(list(splits.values()).count(name) for name in SPLITS) == expected
    assert splits == generic_split(rois[::-1])


def test_a_barcode_brings_the_published_division() -> None:
    rois = _rois("TCGA-OL-0000", "TCGA-A1-0001", "TCGA-A1-0002")
    assert default_rule(rois)(rois) == bcss_split(rois)
