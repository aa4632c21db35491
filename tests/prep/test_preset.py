"""Data sets that are not BCSS get none of its rules, and BCSS keeps all of them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.cli import main
from prep.config import parse_codes
from prep.preset import GivenRules, dataset_rules
from prep.source.discover import find_rois
from schemas.classes import DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES
from schemas.errors import ConfigError
from schemas.store.store import Store, open_store

BCSS_NAME = "TCGA-A1-A0SK-DX1_xmin0_ymin0_MPP-0.2500"


def _build(monkeypatch: pytest.MonkeyPatch, folder: Path, labels: np.ndarray, stem: str, *flags: str) -> Store:
    for name, picture in (("images", Image.new("RGB", labels.shape[::-1])), ("masks", Image.fromarray(labels))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        picture.save(folder / name / f"{stem}.png")
    out = folder / "s.zarr"
    arguments = ["build", str(folder), "--out", str(out), "--size", "64", "--workers", "1", *flags]
    monkeypatch.setattr(sys, "argv", ["bcss-prep", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    return open_store(out)


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize("code", [1, 255])
def test_binary_mask_with_its_class_map_keeps_all_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:15] = code
    (tmp_path / "map.tsv").write_text(f"code\tname\n{code}\tgland\n")
    store = _build(monkeypatch, tmp_path / "d", labels, "slide_7", "--class-map", str(tmp_path / "map.tsv"))
    tile = store[0]
    assert [info.name for info in store.manifest.classes] == ["gland"]
    assert tile.class_ids.tolist() == [code]
    assert not tile.ignore.any()
    np.testing.assert_array_equal(tile.segments[0], labels == code)
    assert "data set: generic (the names are not those of BCSS): every code is a class except 0" in caplog.text
    assert f"{'nothing' if code == 255 else 255} is ignored; --dataset changes that" in caplog.text


def test_classes_of_another_data_set_have_no_names_of_bcss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.array([0, 1, 2, 4], np.uint8), 16)[:, None].repeat(64, 1)
    store = _build(monkeypatch, tmp_path, labels, "2007_000032")
    assert [info.name for info in store.manifest.classes] == ["code_1", "code_2", "code_4"]
    assert not store[0].ignore.any()


def test_code_that_the_class_map_lacks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.repeat(np.array([0, 1, 9, 9], np.uint8), 16)[:, None].repeat(64, 1)
    (tmp_path / "map.tsv").write_text("code\tname\n1\tgland\n")
    named = ("--class-map", str(tmp_path / "map.tsv"))
    store = _build(monkeypatch, tmp_path / "d", labels, "a", *named)
    assert [info.name for info in store.manifest.classes] == ["gland", "code_9"]
    assert "codes that the class map does not name are classes: 9 (code_9); name them in the map" in caplog.text
    caplog.clear()
    _build(monkeypatch, tmp_path / "e", labels, "a", *named, "--classes", "1,9")
    assert "does not name" not in caplog.text


def test_files_named_as_in_bcss_keep_its_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.array([0, 1, 2, 7], np.uint8), 16)[:, None].repeat(64, 1)
    (tmp_path / "map.tsv").write_text("label\tGT_code\noutside_roi\t0\ntumor\t1\nstroma\t2\nexclude\t7\n")
    for number, flags in enumerate([(), ("--class-map", str(tmp_path / "map.tsv"))]):
        store = _build(monkeypatch, tmp_path / str(number), labels, BCSS_NAME, *flags)
        assert [info.name for info in store.manifest.classes] == ["tumor", "stroma"]
        np.testing.assert_array_equal(store[0].ignore, np.isin(labels, (0, 7)))
    rules = dataset_rules(find_rois(tmp_path / "0").rois, GivenRules())
    assert (rules.classes, rules.ignore) == (DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES)


def test_what_the_user_gives_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.array([0, 5, 6, 9], np.uint8), 16)[:, None].repeat(64, 1)
    store = _build(monkeypatch, tmp_path, labels, "a", "--classes", "5-9", "--ignore", "6")
    assert store[0].class_ids.tolist() == [5, 9]
    np.testing.assert_array_equal(store[0].ignore, labels == 6)


def test_many_ignored_pixels_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:40] = 1
    _build(monkeypatch, tmp_path, labels, BCSS_NAME)
    assert "more than a third of the pixels count neither in training nor in scores" in caplog.text
    caplog.clear()
    _build(monkeypatch, tmp_path / "two", labels, BCSS_NAME, "--ignore", "none")
    assert "more than a third" not in caplog.text


def test_range_leaves_out_ignored_codes_and_a_misspelt_name_is_suggested() -> None:
    assert parse_codes("5-9,7", without=(6, 8)) == (5, 7, 9)
    with pytest.raises(ConfigError, match=r"class 'tumour': is neither a code nor a class name; did you mean tumor\?"):
        parse_codes("tumour")


def _preset(monkeypatch: pytest.MonkeyPatch, folder: Path, values: list[int], stem: str, *flags: str) -> Store:
    labels = np.repeat(np.array(values, np.uint8), 64 // len(values))[:, None].repeat(64, 1)
    return _build(monkeypatch, folder, labels, stem, *flags)


def test_generic_data_has_every_code_as_a_class_and_255_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _preset(monkeypatch, tmp_path, [0, 3, 40, 255], "x")
    assert [info.name for info in store.manifest.classes] == ["code_3", "code_40"]
    assert store[0].ignore.mean() == 0.25
    assert (store.manifest.dataset, store.manifest.split_method) == ("generic", "70/15/15 % of the patients, seed 0")


@pytest.mark.parametrize("other", [0, 1])
def test_255_is_the_class_where_there_is_no_other(tmp_path: Path, monkeypatch, other: int) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:32] = 255
    labels[40:] = other
    store = _build(monkeypatch, tmp_path / "d", labels, "a")
    names = [info.name for info in store.manifest.classes]
    assert names == (["code_1"] if other else ["code_255"])
    assert store[0].ignore.any() == bool(other)


def test_voc_has_its_names_colors_and_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _preset(monkeypatch, tmp_path, [0, 1, 15, 255], "2007_000032", "--dataset", "voc")
    assert [(info.code, info.name, info.color) for info in store.manifest.classes] == [
        (1, "aeroplane", (128, 0, 0)),
        (15, "person", (192, 128, 128)),
    ]
    assert store[0].ignore.mean() == 0.25
    assert store.manifest.dataset == "voc"


@pytest.mark.parametrize(
    ("values", "dataset", "why"),
    [
        ([0, 1, 2, 21], "bcss", "the names have TCGA barcodes and the codes are those of BCSS"),
        ([0, 1, 2, 22], "generic", "TCGA-A2-A0D2.png has code 22, which BCSS does not have"),
    ],
)
def test_bare_barcodes_are_bcss_where_all_codes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, values, dataset: str, why: str
) -> None:
    store = _preset(monkeypatch, tmp_path, values, "TCGA-A2-A0D2")
    assert store.manifest.dataset == dataset
    assert f"data set: {dataset} ({why})" in caplog.text


def test_mixed_names_are_said_and_bcss_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("images", "masks"):
        (tmp_path / "d" / name).mkdir(parents=True)
        Image.new("RGB" if name == "images" else "L", (64, 64), 1).save(tmp_path / "d" / name / "other.png")
    assert _preset(monkeypatch, tmp_path / "d", [0, 1], BCSS_NAME).manifest.dataset == "generic"
    assert "data set: generic (1 of 2 names have a TCGA barcode; other has none)" in caplog.text
    told = _preset(monkeypatch, tmp_path / "d", [0, 1], BCSS_NAME, "--dataset", "bcss", "--overwrite")
    assert told.manifest.dataset == "bcss"
    assert [info.name for info in told.manifest.classes] == ["tumor"]


def test_manifest_of_an_earlier_version_keeps_its_digest(store: Store) -> None:
    old = store.manifest.model_copy(update={"dataset": None, "split_method": None})
    assert not {"dataset", "split_method"} & old.model_dump(mode="json").keys()
    assert {"dataset", "split_method"} <= store.manifest.model_dump(mode="json").keys()


@pytest.mark.parametrize("classes", ["1,2", "nucleus", "2"])
def test_classes_cannot_be_chosen_where_nothing_gives_the_class_of_an_instance(classes: str) -> None:
    with pytest.raises(ConfigError, match=r"--classes: chooses among classes, but nothing gives the class"):
        dataset_rules([], GivenRules(objects="instance", classes=classes))
    for same in ("all", "1", "object"):
        assert dataset_rules([], GivenRules(objects="instance", classes=same)).classes == (1,)
