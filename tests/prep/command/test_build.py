"""`bcss-prep build`: what it refuses, and the times that it logs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.store.store import open_store
from tests.programs import run_prep


def test_size_that_is_not_a_multiple_of_8_is_a_usage_error(tmp_path: Path, monkeypatch, capsys) -> None:
    assert run_prep(monkeypatch, "build", tmp_path, "--out", tmp_path / "s.zarr", "--size", 100) == 2
    assert "multiple of 8" in capsys.readouterr().err


def _missing_mask(source: Path) -> None:
    Image.new("RGB", (8, 8)).save(source / "images" / "b.png")


def _off_by_one_column(source: Path) -> None:
    Image.new("L", (41, 40), 1).save(source / "masks" / "a.png")


def _truncated(source: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(source / "images" / "a.png")
    data = (source / "images" / "a.png").read_bytes()
    (source / "images" / "a.png").write_bytes(data[: len(data) // 2])


def _color_mask(source: Path) -> None:
    Image.new("RGB", (40, 40)).save(source / "masks" / "a.png")


def _empty(source: Path) -> None:
    for path in [*source.glob("images/*"), *source.glob("masks/*")]:
        path.unlink()


@pytest.mark.parametrize(
    ("break_it", "named", "remedy"),
    [
        (_missing_mask, "images/b.png", "add the mask"),
        (_off_by_one_column, "masks/a.png: is 41 x 40 px, but its image a.png is 40 x 40 px", "export both again"),
        (_truncated, "images/a.png", "download or export it again"),
        (_color_mask, "masks/a.png", "save it palettized or gray"),
        (_empty, "images", "put the ROIs there"),
    ],
)
def test_bad_source_ends_in_one_line_and_leaves_nothing(
    write_roi, tmp_path: Path, monkeypatch, capsys, break_it, named: str, remedy: str
) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    break_it(source)
    assert run_prep(monkeypatch, "build", source, "--out", tmp_path / "s.zarr", "--size", 64, "--workers", 1) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert error[0].startswith("bcss-prep: error: ")
    assert named in error[0]
    assert remedy in error[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("mpp", ["-1", "0", "nan", "inf"])
def test_resolution_that_is_not_positive_is_a_usage_error(tmp_path: Path, monkeypatch, capsys, mpp: str) -> None:
    assert run_prep(monkeypatch, "build", tmp_path, "--out", tmp_path / "s.zarr", "--mpp", mpp) == 2
    assert "is not a positive number" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--images", "--masks"])
def test_folder_outside_the_source_is_reported_in_one_line(
    write_roi, tmp_path: Path, monkeypatch, capsys, flag: str
) -> None:
    source = write_roi("a", np.full((40, 40), 1, np.uint8))
    outside = (source / flag[2:]).rename(tmp_path / "elsewhere")
    out = tmp_path / "s.zarr"
    assert run_prep(monkeypatch, "build", source, "--out", out, flag, outside, "--workers", 1) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"{outside}: is not in {source}; name folders in it with --images and --masks" in error


def test_debug_logs_stage_times_of_all_processes(sample_source: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    out = tmp_path / "s.zarr"
    assert run_prep(monkeypatch, "build", sample_source, "--out", out, "--size", 128, "--workers", 2, "--debug") == 0
    calls = {r.bcss_fields["stage"]: r.bcss_fields.get("calls") for r in caplog.records if hasattr(r, "bcss_fields")}
    assert calls["decode"] == 6
    assert calls["segments"] >= calls["encode and write"] == len(open_store(out))
    assert calls["join shards"] == 4
    assert {"prompts", "columns", "publish", "wall time"} <= calls.keys()
    assert sum("ROI TCGA" in line for line in caplog.messages) == 6
