"""Stitched ROIs are scored as the written images are against the source's masks."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from prep.config import BuildConfig
from prep.source.class_map import ClassEntry
from tests.train.output.conftest import BuildRois
from train.cli import app
from train.score.answers import tiles_with_objects
from train.score.surface_dice import TileOutlines
from train.statistics.estimate import class_mean


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


@pytest.mark.parametrize("settings", [{}, {"stride_px": 40}, {"edge": "pad"}], ids=str)
def test_scores_are_those_of_the_written_images(
    rois: Path, build_rois: BuildRois, tmp_path: Path, settings: dict[str, Any]
) -> None:
    store = build_rois(**settings)
    out = tmp_path / "out"
    command = ["evaluate", store.path, "--baseline", "box", "--split", "all", "--prompt", "box", "--stitch"]
    ran = CliRunner().invoke(app, [*command, "--device", "cpu", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    rows = _lines(out / "rois.csv")
    ignored = set(BuildConfig().ignore)
    seen: set[tuple[str, int]] = set()
    for source_record in store.manifest.sources:
        name = source_record.frame_id
        with Image.open(rois / "masks" / f"{name}.png") as mask:
            truth = np.asarray(mask)
        (path,) = (out / "stitched").rglob(f"{name}.png")
        with Image.open(path) as picture:
            codes = np.asarray(picture)
        counted = np.zeros(truth.shape, bool)
        for index in tiles_with_objects(store, "all").tolist():
            if store.column("tiles/frame_id")[index] == name:
                x, y = store.column("tiles/origin_xy")[index].tolist()
                counted[y : y + 64, x : x + 64] = True
        counted &= ~np.isin(truth, list(ignored))
        for row in (row for row in rows if row["frame_id"] == name):
            code = int(row["class_id"])
            ours, theirs = (codes == code) & counted, (truth == code) & counted
            assert float(row["dice"]) == pytest.approx(_dice(ours, theirs))
            assert int(row["area_px"]) == theirs.sum()
            assert source_record.mpp_um is not None
            outlines = TileOutlines(~counted, (source_record.mpp_um, source_record.mpp_um), tolerance_um=2.0)
            expected_surface = outlines.surface_dice(codes == code, truth == code)[0]
            assert float(row["surface_dice"]) == pytest.approx(expected_surface, nan_ok=True)
            assert row["patient"] == store.column("tiles/patient")[store.column("tiles/frame_id") == name][0]
            seen.add((name, code))
        assert {code for frame, code in seen if frame == name} >= set(np.unique(truth[counted]).tolist())
    result = json.loads((out / "metrics.json").read_text())["rois"]["baseline:box"]["box"]
    assert result["rois"] == 2
    columns = [np.array([row[key] for row in rows]) for key in ("dice", "patient", "class_id")]
    expected = class_mean(columns[0].astype(float), columns[1], columns[2].astype(int))
    assert result["class_mean"]["dice"]["value"] == pytest.approx(expected.value)
    assert result["class_mean"]["surface_dice"]["value"] > 0
    assert "Stitched ROIs" in (out / "report.html").read_text()


def test_a_resized_roi_is_scored_at_its_own_size(rois: Path, build_rois: BuildRois, tmp_path: Path) -> None:
    store = build_rois(mpp_um=0.6, size_px=40)
    out = tmp_path / "out"
    command = ["evaluate", store.path, "--baseline", "image", "--split", "all", "--prompt", "box", "--stitch"]
    ran = CliRunner().invoke(app, [*command, "--device", "cpu", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    sizes = {record.frame_id: record.width_px * record.height_px for record in store.manifest.sources}
    areas: dict[str, int] = {}
    for row in _lines(out / "rois.csv"):
        areas[row["frame_id"]] = areas.get(row["frame_id"], 0) + int(row["area_px"])
    for name, area in areas.items():
        with Image.open(rois / "masks" / f"{name}.png") as mask:
            wanted = ~np.isin(np.asarray(mask), list(BuildConfig().ignore))
        assert area <= sizes[name]
        assert area == pytest.approx(wanted.sum(), rel=0.1)


@pytest.mark.parametrize("kind", ["merged", "instance"])
def test_truth_of_merged_codes_and_of_instances_is_that_of_their_classes(
    rois: Path, build_rois: BuildRois, tmp_path: Path, kind: str
) -> None:
    if kind == "merged":
        settings: dict[str, Any] = {"class_map": (ClassEntry(code=3, into=2),), "classes": (1, 2)}
    else:
        settings = {"objects": "instance", "dataset": "instances", "classes": (1,), "ignore": ()}
    store = build_rois(**settings)
    out = tmp_path / "out"
    command = ["evaluate", store.path, "--baseline", "image", "--split", "all", "--prompt", "box", "--stitch"]
    ran = CliRunner().invoke(app, [*command, "--device", "cpu", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    areas = {(row["frame_id"], int(row["class_id"])): int(row["area_px"]) for row in _lines(out / "rois.csv")}
    for (frame_id, code), area in areas.items():
        with Image.open(rois / "masks" / f"{frame_id}.png") as mask:
            truth = np.asarray(mask)
        own = truth > 0 if kind == "instance" else np.isin(truth, {1: [1], 2: [2, 3]}[code])
        assert area == own.sum() > 0
