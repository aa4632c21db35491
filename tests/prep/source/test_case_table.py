"""A table of cases: any files, any names, and all of its problems at once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prep.cli import main
from prep.source.case_table import read_case_table
from schemas.errors import ConfigError, SourceError
from schemas.store.store import open_store


def _files(root: Path, *names: str) -> None:
    generator = np.random.default_rng(0)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_mask = "label" in name
        pixels = (
            generator.integers(0, 3, (64, 64), np.uint8)
            if is_mask
            else generator.integers(0, 255, (64, 64, 3), np.uint8)
        )
        Image.fromarray(pixels).save(path)


def test_table_builds_a_store_from_files_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _files(tmp_path, "scans/one.png", "elsewhere/1-label.png", "table/two.tif", "table/2-label.png")
    table = tmp_path / "table" / "cases.csv"
    table.write_text(
        "image;mask;patient;split;mpp_um;institution;frame_id\n"
        "../scans/one.png;../elsewhere/1-label.png;Ann;train;0.5;X;\n"
        f"{tmp_path}/table/two.tif;2-label.png;Bob;test;0.25;Y;second\n"
    )
    out = tmp_path / "s.zarr"
    for _ in range(2):
        # The second call finds that the store is up to date.
        command = ["bcss-prep", "build", str(table), "--out", str(out), "--size", "64", "--workers", "1"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    store = open_store(out)
    assert [store.column(f"tiles/{name}").tolist() for name in ("frame_id", "patient", "institution", "split")] == [
        ["one", "second"],
        ["Ann", "Bob"],
        ["X", "Y"],
        ["train", "test"],
    ]
    sources = store.manifest.sources
    assert [(source.image, source.mask, source.mpp_um) for source in sources] == [
        ("../scans/one.png", "../elsewhere/1-label.png", 0.5),
        ("two.tif", "2-label.png", 0.25),
    ]
    assert (store.manifest.dataset, store.manifest.split_method) == (
        "generic",
        "given by the table or by folders",
    )
    with Image.open(tmp_path / "elsewhere" / "1-label.png") as mask:
        np.testing.assert_array_equal(store[0].labels, np.asarray(mask))


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    _files(tmp_path, "a.png", "a-label.png")
    (tmp_path / "cases.csv").write_text(
        "image,mask,split,mpp_um,patient,frame_id\n"
        "a.png,a-label.png,train,0.5,P,one\n"
        "b.png,a-label.png,train,0.5,P,two\n"
        "a.png,,train,0.5,P,three\n"
        "a.png,a-label.png,holdout,0.5,P,four\n"
        "a.png,a-label.png,train,0,P,five\n"
        "a.png,a-label.png,train,0.5,P,x/y\n"
        "a.png,a-label.png,test,0.5,P,one\n"
    )
    with pytest.raises(SourceError) as caught:
        read_case_table(tmp_path / "cases.csv")
    head, *lines = str(caught.value).splitlines()
    assert "cases.csv: has 7 problems; fix them" in head
    for line, words in zip(
        lines,
        [
            "line 3: names the image b.png, which does not exist",
            "line 4: has no mask",
            "line 5: has split 'holdout'",
            "line 6: has mpp_um '0'",
            "line 7: has frame_id 'x/y'",
            "gives 2 ROIs the name one",
            "puts patient P into test and train",
        ],
        strict=True,
    ):
        assert words in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\na.png\n", "lacks the column mask"),
        ("", "has no row"),
        ("image,mask\n", "has no row"),
        ("image,mask,split\na.png,a-label.png,train\nb.png,b-label.png,\n", "has a row of patient b without a split"),
    ],
)
def test_table_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    _files(tmp_path, "a.png", "a-label.png", "b.png", "b-label.png")
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises((ConfigError, SourceError), match=message):
        read_case_table(tmp_path / "cases.csv")


def test_unknown_columns_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _files(tmp_path, "a.png", "a-label.png")
    (tmp_path / "cases.csv").write_text("image,mask,pateint\na.png,a-label.png,P\n")
    assert [roi.patient for roi in read_case_table(tmp_path / "cases.csv").rois] == ["a"]
    assert "unknown columns are left out: pateint" in caplog.text


def test_stems_that_repeat_get_their_folder(tmp_path: Path) -> None:
    _files(tmp_path, "p/x.png", "q/x.png", "x-label.png")
    (tmp_path / "cases.csv").write_text("image,mask\np/x.png,x-label.png\nq/x.png,x-label.png\n")
    assert [roi.frame_id for roi in read_case_table(tmp_path / "cases.csv").rois] == ["p_x", "q_x"]
