"""Prompts from QuPath, tables and COCO, in pixels of the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import BcssError, ConfigError, SourceError
from tests.train.predict.conftest import feature, rectangle, write_geojson
from train.predict.window_prediction import as_prompt
from train.prompts.object_prompt import ObjectPrompt
from train.prompts.prompts_of_images import PromptsOfImages
from train.prompts.region import in_region


def test_qupath_rectangles_points_and_negative_points(tmp_path: Path) -> None:
    path = tmp_path / "p.geojson"
    write_geojson(
        path,
        [
            rectangle((10, 20, 40, 50), "tumor"),
            feature({"type": "MultiPoint", "coordinates": [[100.2, 7.9], [103, 8]]}, "stroma"),
            feature({"type": "Point", "coordinates": [12, 22]}, "Ignore*"),
            feature({"type": "MultiPoint", "coordinates": [[110, 8]]}, "negative"),
        ],
    )
    box, clicks = PromptsOfImages.read(path).asked[""]
    assert box.box == (10, 20, 40, 50)
    assert box.points == (((12, 22), False),)
    assert clicks.points == (((100.2, 7.9), True), ((103, 8), True), ((110, 8), False))
    assert (box.kind and box.kind.name, box.kind and box.kind.color) == ("tumor", (10, 20, 30))
    # A rectangle from a to b is the box of pixels a to b - 1, and a click at x is the pixel floor(x).
    assert as_prompt(box.box, box.points, 128) == ([[10, 20], [39, 49], [12, 22]], [2, 3, 0])
    assert as_prompt(None, clicks.points, 128) == ([[100, 7], [103, 8], [110, 8]], [1, 1, 0])


def test_table_and_coco_say_pixels_in_their_own_way(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("image,object,x0,y0,x1,y1,class\na/t.png,one,10,20,39,49,tumor\n")
    (asked,) = PromptsOfImages.read(tmp_path / "b.csv").asked["t.png"]
    assert as_prompt(asked.box, (), 128)[0] == [[10, 20], [39, 49]]
    assert asked.kind is not None
    (tmp_path / "semicolons.csv").write_text("object;x;y\n1;7;8\n")
    (asked,) = PromptsOfImages.read(tmp_path / "semicolons.csv").asked[""]
    assert asked.points == (((7.5, 8.5), True),)
    (tmp_path / "p.csv").write_text("image,object,x,y,label\nt.png,one,7,8,1\nt.png,one,9,9,0\nu.png,two,1,2,\n")
    found = PromptsOfImages.read(tmp_path / "p.csv").asked
    assert as_prompt(None, found["t.png"][0].points, 128) == ([[7, 8], [9, 9]], [1, 0])
    assert as_prompt(None, found["u.png"][0].points, 128) == ([[1, 2]], [1])
    coco = {
        "images": [{"id": 3, "file_name": "x/t.png"}],
        "annotations": [{"image_id": 3, "category_id": 17, "bbox": [10, 20, 30, 30]}],
        "categories": [{"id": 17, "name": "tumor"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(coco))
    (asked,) = PromptsOfImages.read(tmp_path / "c.json").asked["t.png"]
    assert as_prompt(asked.box, (), 128)[0] == [[10, 20], [39, 49]]
    assert asked.kind is not None
    assert (asked.kind.name, asked.kind.code) == ("tumor", 17)
    assert not any(PromptsOfImages.read(tmp_path / name).is_qupath for name in ("b.csv", "c.json"))
    prompts = PromptsOfImages(tmp_path / "p.csv", found)
    assert [len(prompts.of(Path(name), alone=False)) for name in ("t.png", "u.png", "v.png")] == [1, 1, 0]


def test_what_is_no_prompt_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = {"type": "LineString", "coordinates": [[1, 1], [2, 2]]}
    box = rectangle((1, 1, 9, 9), "tumor")
    ignored = [rectangle((1, 1, 9, 9), "Ignore*"), rectangle((1, 1, 9, 9), "Negative")]
    collection = {"type": "GeometryCollection", "geometries": [line, box["geometry"]]}
    write_geojson(tmp_path / "p.geojson", [*ignored, box, feature(line), feature(collection)])
    (asked,) = PromptsOfImages.read(tmp_path / "p.geojson").asked[""]
    assert asked.kind is not None
    assert asked.kind.name == "tumor"
    assert "left out: 2 (areas of an ignored or negative class)" in caplog.text
    assert "left out: 1 (neither an area nor a point)" in caplog.text
    assert "left out: 1 (collections of several shapes)" in caplog.text
    assert len(caplog.records) == 3


IN_IMAGE, NEGATIVE_CLICK = ((5.0, 5.0), True), ((50.0, 50.0), False)


@pytest.mark.parametrize(
    ("item", "place"),
    [
        (ObjectPrompt("a", (-30, 10, 0, 40)), "-30, 10"),
        (ObjectPrompt("a", (10, 80, 20, 90)), "10, 80"),
        (ObjectPrompt("a", None, (((-50, 10), True), ((5000, 10), True))), "-50, 10"),
        (ObjectPrompt("a", None, (IN_IMAGE, ((5000.5, 10.5), True))), "5000, 10"),
        (ObjectPrompt("a", (1, 1, 9, 9), (NEGATIVE_CLICK, ((100, 10), False))), "100, 10"),
    ],
)
def test_prompt_outside_its_image_is_named(item: ObjectPrompt, place: str) -> None:
    with pytest.raises(BcssError, match=f"t.png: has the prompt a outside, at {place};.* 100 x 80 pixels"):
        in_region([item], Path("t.png"), (100, 80), None)


def test_prompts_outside_a_region_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    straddling = ObjectPrompt("a", (-5, 70, 30, 90), (NEGATIVE_CLICK,))
    clicks = ObjectPrompt("b", None, (IN_IMAGE, ((35.0, 75.0), True)))
    path = Path("t.png")
    assert in_region([straddling, clicks], path, (100, 80), None) == [straddling, clicks]
    found = in_region([straddling, clicks, ObjectPrompt("c", (40, 0, 50, 9))], path, (100, 80), (20, 60, 20, 20))
    assert [(item.box, len(item.points)) for item in found] == [((-5, 70, 30, 90), 0), (None, 1)]
    assert "t.png: prompts outside --region that are left out: 1" in caplog.text
    # Files that count from (10, 5) mean the same place with smaller numbers, and are told the place in their own.
    assert in_region([ObjectPrompt("c", (40, 0, 50, 9))], path, (100, 80), None, (10, 5))[0].box == (50, 5, 60, 14)
    with pytest.raises(BcssError, match="outside, at 95, 0"):
        in_region([ObjectPrompt("c", (95, 0, 99, 9))], path, (100, 80), None, (10, 5))
    with pytest.raises(BcssError, match=r"--region: has none of the 1 prompts of t\.png"):
        in_region([straddling], path, (100, 80), (40, 40, 60, 20))


def test_boxes_that_reach_outside_the_image_are_said(caplog: pytest.LogCaptureFixture) -> None:
    boxes = [(-1.0, 0.0, 101.0, 50.0), (10.0, 10.0, 12000.0, 50.0), (-40.0, 10.0, 50.0, 50.0)]
    asked = [ObjectPrompt(str(number), box) for number, box in enumerate(boxes)]
    assert in_region(asked, Path("a.png"), (100, 50), None) == asked
    assert caplog.messages == ["a.png: boxes that reach outside its 100 x 50 px: 2, such as 1"]


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    for name in ("t.geojson", "t.json"):
        write_geojson(tmp_path / name, [rectangle((1, 2, 30, 40))])
    with pytest.raises(BcssError, match=r"t\.json: has the same stem as another file of prompts; leave one of them"):
        PromptsOfImages.read(tmp_path)


def test_prompts_of_another_image_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,object,x,y\nother.png,1,1,1\n")
    (tmp_path / "q.csv").write_text("object,x,y\n1,1,1\n")
    named, unnamed = (PromptsOfImages.read(path) for path in (tmp_path / "p.csv", tmp_path / "q.csv"))
    assert [len(named.of(Path(name), alone=True)) for name in ("other.png", "slide.svs")] == [1, 0]
    assert [len(unnamed.of(Path("slide.svs"), alone=alone)) for alone in (True, False)] == [1, 0]


def test_image_may_be_named_with_and_without_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("image,object,x,y\nt.png,1,2,3\nt,2,4,5\nu,3,6,7\n")
    asked = PromptsOfImages.read(path).of(Path("t.png"), alone=False)
    assert [(item.name, item.positive) for item in asked] == [("1", [(2.5, 3.5)]), ("2", [(4.5, 5.5)])]


def test_rows_of_one_name_are_one_object_and_rows_without_a_name_are_several(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("image,object,x0,y0,x1,y1,x,y,label\nt.png,a,1,1,9,9,,,\nt.png,a,,,,,3,3,0\nu.png,a,2,2,8,8,,,\n")
    assert [
        [(item.name, len(item.points)) for item in items] for items in PromptsOfImages.read(path).asked.values()
    ] == [
        [("a", 1)],
        [("a", 0)],
    ]
    path.write_text("image,object,x0,y0,x1,y1\nt.png,,1,1,9,9\nt.png,3,5,5,7,7\nt.png,,20,20,30,30\n")
    (objects,) = PromptsOfImages.read(path).asked.values()
    assert [item.box for item in objects] == [(1, 1, 10, 10), (5, 5, 8, 8), (20, 20, 31, 31)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "holds no prompt"),
        ("a.json", '{"type": "Feature"}', "is not GeoJSON"),
        ("a.csv", "", "holds no prompt"),
        ("a.csv", "object,x\n1,2\n", "has the columns object, x, but needs object, x, y or object, x0, y0, x1, y1"),
        ("a.csv", "Object;X;Y\n1;2;3\n", "has the columns Object, X, Y, but needs object, x, y"),
        ("a.json", "[[20, 20, 80, 90]]", "is neither GeoJSON nor COCO"),
        ("a.json", '{"boxes": []}', "is neither GeoJSON nor COCO"),
        ("a.csv", "object,x,y\n1,2,z\n", "line 2: has y 'z'"),
        ("a.csv", "object,x,y,label\n1,2,3,5\n", "has label '5'"),
        ("a.csv", "image,object,x,y\nt.png,1,2,3\n,2,4,5\n", "names an image in some rows only"),
        ("a.csv", "object,x,y,label\n1,2,3,0\n", "neither a box nor a click"),
        ("a.csv", "image,object,x,y\np1/t.png,1,2,3\np2\\t.png,2,4,5\n", "names p1/t.png and p2/t.png, two images"),
        (
            "a.json",
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "p1/t.png"}, {"id": 2, "file_name": "p2/t.png"}],
                    "annotations": [{"image_id": 1, "bbox": [10, 10, 5, 2]}],
                }
            ),
            "names p1/t.png and p2/t.png, two images with the same file name",
        ),
        (
            "a.json",
            json.dumps({**rectangle((1, 2, 3, 4)), "properties": {"name": "\ud800x"}}),
            "whose name or class is not text",
        ),
        (
            "a.csv",
            "image,object,x0,y0,x1,y1\nt,1,1,1,9,9\n\nt,1,2,2,8,8\n",
            "line 4: gives the object 1 of this image a",
        ),
        ("a.csv", "object,x0,y0,x1,y1\n1,30,5,9,9\n", "line 2: has a box of -20 x 5 px"),
        ("a.json", json.dumps({"images": [], "annotations": [{"image_id": 1}]}), "is not a COCO file"),
        (
            "a.json",
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "t.png"}],
                    "annotations": [{"image_id": 1, "bbox": [10, 10, -5, 2]}],
                }
            ),
            "annotation 1: has a box of -5 x 2 px",
        ),
        ("a.json", json.dumps(feature({"type": "Point", "coordinates": [1, 2]}, "negative")), "but no object"),
    ],
)
def test_bad_prompts_are_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BcssError, match=message) as caught:
        PromptsOfImages.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_box_is_clipped_to_its_window() -> None:
    assert as_prompt((-5, -5, 300, 20), (), 128)[0] == [[0, 0], [127, 19]]
    assert np.array(as_prompt((5, 5, 5, 5), (), 128)[0]).min() >= 4


def test_export_of_qupath_belongs_to_its_ome_tiff(tmp_path: Path) -> None:
    for name in ("slide 0", "slide 1"):
        write_geojson(tmp_path / f"{name}.geojson", [rectangle((1, 1, 9, 9), "tumor")])
    prompts = PromptsOfImages.read(tmp_path)
    images = [Path("slide 0.ome.tif"), Path("slide 1.ome.tif")]
    assert [len(asked) for asked in prompts.by_image(images).values()] == [1, 1]
    alone = PromptsOfImages.read(tmp_path / "slide 0.geojson")
    with pytest.raises(ConfigError, match="give a folder with one GeoJSON file for each image"):
        alone.by_image(images)


def test_box_of_less_than_a_pixel_of_the_grid_keeps_its_corners_in_order() -> None:
    assert as_prompt((25.0, 25.0, 25.75, 25.75), (), 128) == ([[25, 25], [25, 25]], [2, 3])
    assert as_prompt((127.5, 10.0, 128.0, 30.0), (), 128) == ([[127, 10], [127, 29]], [2, 3])


def test_class_of_an_object_may_stand_in_any_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("object,x,y,class\na,20,20,\na,25,25,tumor\n")
    (asked,) = PromptsOfImages.read(path).asked[""]
    assert asked.kind is not None
    assert asked.kind.name == "tumor"
    path.write_text("object,x,y,class\na,20,20,stroma\n\na,25,25,tumor\n")
    with pytest.raises(SourceError, match=r"p.csv line 4: gives the object a a second class, tumor"):
        PromptsOfImages.read(path)


def test_area_without_width_is_refused(tmp_path: Path) -> None:
    line = {"type": "Polygon", "coordinates": [[[60, 60], [60, 90], [60, 90], [60, 60]]]}
    write_geojson(tmp_path / "p.geojson", [rectangle((1, 1, 9, 9), "tumor"), feature(line)])
    with pytest.raises(SourceError, match=r"p.geojson feature 2: has a box of 0 x 30 px"):
        PromptsOfImages.read(tmp_path / "p.geojson")


def test_coco_file_of_images_of_another_size_is_refused(tmp_path: Path) -> None:
    coco = {
        "images": [
            {"id": 3, "file_name": "x/t.png", "width": 400, "height": 300},
            {"id": 4, "file_name": "u.png", "width": 400.5},
        ],
        "annotations": [{"image_id": number, "bbox": [10, 20, 30, 30]} for number in (3, 4)],
    }
    (tmp_path / "c.json").write_text(json.dumps(coco))
    prompts = PromptsOfImages.read(tmp_path / "c.json")
    prompts.check_size(Path("t.png"), (400, 300))
    prompts.check_size(Path("u.png"), (7, 7))
    with pytest.raises(SourceError, match=r"c.json: says that t.png is 400 x 300 px, but it is 200 x 150 px"):
        prompts.check_size(Path("t.png"), (200, 150))
