"""Test annotations and tables of cases that are made to break the code that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from prep.annotation.masks import plan_masks
from prep.source.case_table import read_case_table
from prep.source.instances import read_instance_classes
from tests.faults.forms import forms
from tests.faults.fuzz_file import fuzz_file
from tests.faults.mutations import documents

WIDTH, HEIGHT = 24, 16
RING = [[2, 2], [9, 2], [9, 8], [2, 8], [2, 2]]
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
    "categories": [{"id": 2, "name": "tumor"}],
    "annotations": [
        {"image_id": 1, "category_id": 2, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"image_id": 1, "category_id": 2, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [20, 300, 64]}},
        {"image_id": 1, "category_id": 2, "segmentation": {"size": [HEIGHT, WIDTH], "counts": "d0\\9P2"}, "iscrowd": 1},
    ],
}
GEOJSON: dict[str, Any] = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [RING]},
            "properties": {"objectType": "annotation", "classification": {"name": "a", "color": [1, 2, 3]}},
        },
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[RING]]}, "properties": {}},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}},
    ],
}
LABELME: dict[str, Any] = {
    "shapes": [
        {"label": "a", "points": RING, "shape_type": "polygon", "group_id": 1},
        {"label": "b", "points": [[1, 1], [4, 4]], "shape_type": "circle", "group_id": None},
    ],
    "imageWidth": WIDTH,
    "imageHeight": HEIGHT,
}
YOLO = b"0 0.1 0.1 0.5 0.1 0.5 0.5\n3 0 0 1 0 1 1 0 1\n"


def with_image(folder: Path) -> Path:
    """Write the one image that is annotated, and return the folder."""
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / "a.png")
    return folder


def draw(source: Path) -> None:
    """Draw annotations that lie beside the folder of images."""
    plan = plan_masks(source, source.parent / "images")
    for areas in plan.shapes.values():
        for area in areas:
            window, pixels = area.pixels(HEIGHT, WIDTH)
            assert np.zeros((HEIGHT, WIDTH))[window].shape == pixels.shape


def table(folder: Path) -> bytes:
    """Write the files of a table of cases, and return the table."""
    Image.new("L", (8, 8)).save(folder / "i.png")
    return (
        b"image,mask,frame_id,patient,split,mpp_um,institution\ni.png,i.png,a,P,train,0.5,X\ni.png,i.png,b,Q,test,1,Y\n"
    )


@pytest.mark.parametrize("inputs", forms(100, 10_000))
@pytest.mark.parametrize("name", ["COCO", "GEOJSON", "LABELME"])
def test_annotations_are_drawn_or_refused(tmp_path: Path, inputs: int, name: str, tally) -> None:
    content: dict[str, Any] = globals()[name]
    texts = documents(content).map(lambda document: json.dumps(document).encode())
    found = fuzz_file(inputs, with_image(tmp_path) / "a.json", draw, json.dumps(content).encode(), texts)
    tally(f"hostile annotations ({name})", found)


@pytest.mark.parametrize("inputs", forms(100, 10_000))
def test_labels_of_yolo_are_drawn_or_refused(tmp_path: Path, inputs: int, tally) -> None:
    cells = st.sampled_from(["0", "1", "0.5", "-1", "1e9", "nan", "inf", "9" * 400, "x", "", "\0"])
    rows = st.lists(cells, max_size=9).map(" ".join)
    texts = st.lists(rows, max_size=4).map("\n".join).map(str.encode)
    (tmp_path / "labels").mkdir()
    path = with_image(tmp_path) / "labels" / "a.txt"
    tally("hostile annotations (YOLO)", fuzz_file(inputs, path, lambda path: draw(path.parent), YOLO, texts))


@pytest.mark.parametrize("inputs", forms(100, 10_000))
def test_tables_of_cases_are_read_or_refused(tmp_path: Path, inputs: int, tally) -> None:
    cells = st.sampled_from(["image", "mask", "split", "i.png", "../i.png", "train", "0.5", "-1", "", '"', "\0", "/"])
    rows = st.lists(cells | st.text(max_size=5), max_size=5).map(",".join)
    texts = st.lists(rows, max_size=5).map("\n".join).map(lambda text: text.encode("utf-8", "surrogatepass"))
    tally("hostile tables of cases", fuzz_file(inputs, tmp_path / "cases.csv", read_case_table, table(tmp_path), texts))


@pytest.mark.parametrize("inputs", forms(100, 10_000))
def test_classes_of_instances_are_read_or_refused(tmp_path: Path, inputs: int, tally) -> None:
    cells = st.sampled_from(["id", "class", "frame_id", "1", "-1", "9" * 5000, "\u0663", "a", "", '"', "\0"])
    rows = st.lists(cells | st.text(max_size=5), max_size=4).map(",".join)
    texts = st.lists(rows, max_size=5).map("\n".join).map(lambda text: text.encode("utf-8", "surrogatepass"))
    found = fuzz_file(inputs, tmp_path / "ids.csv", read_instance_classes, b"frame_id,id,class\na,1,2\n", texts)
    tally("hostile classes of instances", found)
