"""Numbers in the CSV file."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from train.prompts.object_class import ObjectClass
from train.results.categories import NO_CLASS, category_ids
from train.results.found_object import FoundObject
from train.results.placed_object import placed
from train.results.vector_files import CocoFile, CsvFile
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid

ALL = "geojson,masks,coco,csv,overlay"
EVERYTHING = ["--automatic", "--grid", "4", "--iou-threshold", "0", "--stability-threshold", "0"]


def test_csv_has_plain_numbers(tmp_path: Path) -> None:
    # A pixel of the grid is 1.5 px wide.
    grid = WorkingGrid.of(Picture(np.zeros((1800, 2400, 3), np.uint8), mpp_um=1.0), 1.5)
    found = FoundObject.from_mask(np.ones((1001, 1333), bool), (1, 1), 0.9, 1.0)
    assert found is not None
    file = CsvFile(tmp_path / "a.csv")
    for item in placed([found], grid):
        file.add(item)
    file.close()
    with (tmp_path / "a.csv").open(newline="") as rows:
        (row,) = csv.DictReader(rows)
    assert [row[name] for name in ("x0", "y0", "x1", "y1", "area_px")] == ["1.5", "1.5", "2000", "1502", "3002249.25"]


def test_coco_lists_each_category_once(tmp_path: Path) -> None:
    grid = WorkingGrid.of(Picture(np.zeros((8, 8, 3), np.uint8)))
    kinds = [ObjectClass(NO_CLASS), ObjectClass("tumor", code=4)]
    file = CocoFile(tmp_path / "a.json", grid, category_ids(kinds, {}))
    for kind in (*kinds, None):
        found = FoundObject.from_mask(np.ones((2, 2), bool), (1, 1), 0.9, 1.0)
        assert found is not None
        for item in placed([replace(found, kind=kind)], grid):
            file.add(item)
    file.close()
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["categories"] == [{"id": 4, "name": "tumor"}, {"id": 5, "name": "object"}]
    assert [row["category_id"] for row in content["annotations"]] == [5, 4, 5]


def test_categories_keep_the_ids_of_prompts_and_then_the_codes_of_training() -> None:
    trained = {"gland": 1, "vessel": 7}
    asked = [ObjectClass("vessel"), ObjectClass("nucleus", code=1), ObjectClass("lymph", code=0), ObjectClass("fat")]
    assert category_ids(asked, trained) == {"nucleus": 1, "lymph": 0, "vessel": 7, "object": 8, "fat": 9}
    assert category_ids([ObjectClass("gland", code=3)], trained) == {"gland": 3, "object": 4}
    # Without prompts, objects have the class of training.
    assert category_ids([ObjectClass("vessel")], {"vessel": 7}) == {"vessel": 7, "object": 8}
    assert category_ids([ObjectClass("gland"), ObjectClass("nucleus", code=1)], trained)["gland"] == 3
    assert category_ids([], trained) == {"object": 1}


def test_box_in_coco_fits_the_mask_where_the_grid_is_finer_than_the_image(tmp_path: Path) -> None:
    grid = WorkingGrid.of(Picture(np.zeros((60, 60, 3), np.uint8), mpp_um=0.25), 0.13)
    generator = np.random.default_rng(0)
    file = CocoFile(tmp_path / "a.json", grid, category_ids([], {}))
    found = [
        FoundObject.from_mask(
            generator.random(generator.integers(8, 40, 2)) < 0.3, tuple(generator.integers(0, 70, 2).tolist()), 0.9, 1.0
        )
        for _ in range(50)
    ]
    for item in placed([each for each in found if each], grid):
        file.add(item)
    file.close()
    rows = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert len(rows) == 50
    for row in rows:
        assert row["bbox"] == coco_mask.toBbox(row["segmentation"]).tolist()
        assert row["area"] == coco_mask.area(row["segmentation"])
