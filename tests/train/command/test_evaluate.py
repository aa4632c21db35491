"""`bcss-train evaluate`: what it writes, and what it refuses."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import zarr

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.store.store import Store
from tests.programs import run_train
from train.model.promptable import PromptableSam


@pytest.fixture(scope="module")
def bare_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one training patient and without negative points."""
    folder = tmp_path_factory.mktemp("bare")
    write_sample(folder / "source", rois=1, size_px=128)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=128))
    group = zarr.open_group(folder / "s.zarr", mode="r+")
    group.attrs["bcss"] = {**cast("dict[str, Any]", group.attrs["bcss"]), "negative_points": 0}
    return str(folder / "s.zarr")


def test_masks_rois_and_clicks_are_written_on_request(
    store: Store, nano: PromptableSam, tmp_path: Path, monkeypatch, capsys
) -> None:
    official = tmp_path / "official.pt"
    torch.save({"model": nano.sam.state_dict()}, official)
    model = ("--checkpoint", official, "--model", "nano", "--image-size", 128, "--device", "cpu")
    wanted = ("--save-masks", "--stitch", "--corrections", 1, "--prompt", "box", "--prompt", "centroid")
    out = tmp_path / "out"
    assert run_train(monkeypatch, "evaluate", store.path, *model, *wanted, "--threshold", "0.5", "--out", out) == 0
    for kind in ("box", "centroid"):
        assert len(list((out / "stitched" / "official" / kind).iterdir())) == 1
        assert (out / "masks" / "official" / kind / "results.json").exists()
    # Masks are those of models alone, unless a baseline is named.
    assert [path.name for path in (out / "stitched").iterdir()] == ["official"]
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["official", "truth.json"]
    printed = capsys.readouterr().out
    for folder in ("masks", "stitched"):
        assert f"{folder:<8} {out / folder}; pixels without a mask have the value 0" in printed
    assert "Dice after simulated clicks" in (out / "report.html").read_text()
    result = json.loads((out / "metrics.json").read_text())
    assert result["protocol"]["thresholds"] == {"official, box": 0.5, "official, centroid": 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "small"], "does not fit the model small"),
        (
            ["--model", "nano", "--threshold", "val", "--split", "val"],
            "cannot tune the threshold on the split that is being scored",
        ),
        (
            ["--model", "nano", "--threshold", "val", "--split", "all"],
            "cannot tune the threshold on the split that is being scored",
        ),
        (["--model", "nano", "--threshold", "high"], "--threshold high: is neither"),
        (["--model", "nano", "--threshold", "nan"], "--threshold nan: is neither"),
        (["--model", "nano", "--negatives"], "has no negative points"),
        (["--model", "nano", "--split", "test"], "has no object in the split 'test'; it has tiles in train"),
    ],
)
def test_impossible_evaluations_print_one_line_and_exit_1(
    bare_store: str, nano: PromptableSam, tmp_path: Path, monkeypatch, capsys, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": nano.sam.state_dict()}, "official.pt")
    common = ("--checkpoint", "official.pt", "--image-size", 128, "--split", "train", "--out", "out")
    assert run_train(monkeypatch, "evaluate", bare_store, *common, *arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert not Path("out").exists()


@pytest.mark.parametrize("flag", ["tta", "negatives"])
def test_flag_of_an_evaluation_reaches_its_protocol(store: Store, tmp_path: Path, monkeypatch, flag: str) -> None:
    common = ("--baseline", "box", "--prompt", "box", "--split", "val", "--out", tmp_path)
    assert run_train(monkeypatch, "evaluate", store.path, *common, f"--{flag}") == 0
    protocol = json.loads((tmp_path / "metrics.json").read_text())["protocol"]
    assert {name: protocol[name] for name in ("tta", "negatives")} == {"tta": False, "negatives": False, flag: True}


def test_baseline_alone(store: Store, tmp_path: Path, monkeypatch) -> None:
    common = ("--split", "val", "--save-masks", "--out", tmp_path)
    assert run_train(monkeypatch, "evaluate", store.path, "--baseline", "box", *common) == 0
    assert (tmp_path / "masks" / "baseline_box" / "box" / "results.json").exists()
    assert list(json.loads((tmp_path / "metrics.json").read_text())["models"]) == ["baseline:box"]
