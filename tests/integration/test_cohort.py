"""An external cohort: a store with test tiles alone is built, verified and scored, and a fit says what is missing."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prep.cli import app as prep_app
from prep.sample.write import write_sample
from train.cli import app


@pytest.fixture(scope="module")
def cohort(module_path: Path) -> Path:
    write_sample(module_path / "source", rois=2, size_px=128, seed=5)
    out = module_path / "cohort.zarr"
    command = ["build", str(module_path / "source"), "--out", str(out), "--size", "64", "--split-fractions", "0,0,1"]
    ran = CliRunner().invoke(prep_app, command)
    assert ran.exit_code == 0, ran.output
    return out


def test_a_cohort_is_verified_and_scored(cohort: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(prep_app, ["verify", str(cohort)])
    assert ran.exit_code == 0, ran.output
    ran = CliRunner().invoke(app, ["evaluate", str(cohort), "--baseline", "disc", "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["protocol"]["split"] == "test"


def test_a_cohort_is_not_trained_on(cohort: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["fit", str(cohort), "--model", "nano", "--out", str(tmp_path / "run")])
    assert ran.exit_code != 0
    assert "has no object in the split 'train'" in str(ran.exception)
    assert "it has tiles in test" in str(ran.exception)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_store_without_test_tiles_is_scored_on_what_it_has(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for fractions, expected in (("0.5,0.5,0", "val"), ("1,0,0", "train")):
        store, out = tmp_path / f"{expected}.zarr", tmp_path / expected
        command = ["build", str(cohort.parent / "source"), "--out", str(store), "--size", "64"]
        assert CliRunner().invoke(prep_app, [*command, "--split-fractions", fractions]).exit_code == 0
        ran = CliRunner().invoke(app, ["evaluate", str(store), "--baseline", "box", "--out", str(out)])
        assert ran.exit_code == 0, ran.output
        assert json.loads((out / "metrics.json").read_text())["protocol"]["split"] == expected
        assert f"has no object in the split test, so {expected} is scored" in caplog.text
