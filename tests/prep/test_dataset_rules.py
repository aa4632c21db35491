"""Data sets that are not BCSS get none of its rules, and BCSS keeps all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.cli import main
from prep.config import parse_codes
from prep.dataset_rules import dataset_rules
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
    assert "the files are not named as in BCSS, so nothing is ignored (--ignore changes that)" in caplog.text


def test_classes_of_another_data_set_have_no_names_of_bcss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.array([0, 1, 2, 4], np.uint8), 16)[:, None].repeat(64, 1)
    store = _build(monkeypatch, tmp_path, labels, "2007_000032")
    assert [info.name for info in store.manifest.classes] == ["class_1", "class_2", "class_4"]
    assert not store[0].ignore.any()


def test_files_named_as_in_bcss_keep_its_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.array([0, 1, 2, 7], np.uint8), 16)[:, None].repeat(64, 1)
    (tmp_path / "map.tsv").write_text("label\tGT_code\noutside_roi\t0\ntumor\t1\nstroma\t2\nexclude\t7\n")
    for number, flags in enumerate([(), ("--class-map", str(tmp_path / "map.tsv"))]):
        store = _build(monkeypatch, tmp_path / str(number), labels, BCSS_NAME, *flags)
        assert [info.name for info in store.manifest.classes] == ["tumor", "stroma"]
        np.testing.assert_array_equal(store[0].ignore, np.isin(labels, (0, 7)))
    rules = dataset_rules(tmp_path / "0" / "masks", None, None, ())
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
