"""Outlines of COCO, QuPath, Labelme and YOLO become the same pixels."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from prep.annotation.masks import write_masks
from prep.annotation.shapes import Polygon, Shape
from prep.cli import main
from prep.preset import GivenRules, dataset_rules
from prep.source.class_map import ClassEntry, read_class_map
from prep.source.discover import find_rois
from prep.source.instances import read_instance_classes
from schemas.errors import BcssError, ConfigError, SourceError
from schemas.store.store import open_store

WIDTH, HEIGHT = 60, 40
SQUARE = [[10, 5], [30, 5], [30, 25], [10, 25]]
HOLE = [[15, 10], [20, 10], [20, 15], [15, 15]]
TRIANGLE = [[35, 5], [55, 5], [45, 35]]


def _closed(points: list[list[int]]) -> list[list[int]]:
    return [*points, points[0]]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the images `a.png` and `b.jpg`."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)
    return folder


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _expected() -> np.ndarray:
    """The square has the pixels 10 to 29 and 5 to 24."""
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[5:25, 10:30] = True
    return square


def _coco(*annotations: dict[str, Any], categories: tuple[int, ...] = (3, 9)) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "some/where/a.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": number, "name": f"class {number}"} for number in categories],
        "annotations": [{"image_id": 7, "category_id": 3, **annotation} for annotation in annotations],
    }


def _write(tmp_path: Path, content: object, name: str = "coco.json") -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_both_kinds_of_runs_are_exact(tmp_path_factory: pytest.TempPathFactory, seed: int, compressed: bool) -> None:
    tmp_path = tmp_path_factory.mktemp("coco")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "a.png")
    generator = np.random.default_rng(seed)
    mask = np.kron(generator.random((HEIGHT // 4, WIDTH // 4)) < generator.random(), np.ones((4, 4), bool))
    runs: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))  # type: ignore[assignment]
    counts: Any = runs["counts"].decode()
    if not compressed:
        flat = mask.T.ravel()
        ends = np.flatnonzero(np.diff(flat.astype(int))) + 1
        counts = np.diff(np.array([0, *ends.tolist(), flat.size])).tolist()
        counts = [0, *counts] if flat[0] else counts
    path = _write(tmp_path, _coco({"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}))
    write_masks(path, tmp_path / "images", tmp_path / "out")
    np.testing.assert_array_equal(_read(tmp_path / "out" / "a.png"), mask * 3)


def _by_pycocotools(outline: np.ndarray, height: int, width: int) -> np.ndarray:
    tools: Any = coco_mask
    runs = tools.frPyObjects([outline.ravel().tolist()], height, width)
    with warnings.catch_warnings():
        # pycocotools has not followed NumPy's protocol.
        warnings.simplefilter("ignore", DeprecationWarning)
        return tools.decode(runs)[..., 0].astype(bool)


def _drawn(outline: np.ndarray, height: int, width: int) -> np.ndarray:
    found = np.zeros((height, width), bool)
    window, pixels = Shape("x", (Polygon(outline),)).pixels(height, width)
    found[window] = pixels
    return found


@given(st.lists(st.tuples(st.floats(-9, WIDTH + 9), st.floats(-9, HEIGHT + 9)), min_size=3, max_size=9))
def test_polygons_are_those_of_pycocotools(points: list[tuple[float, float]]) -> None:
    outline = np.array(points)
    np.testing.assert_array_equal(_drawn(outline, HEIGHT, WIDTH), _by_pycocotools(outline, HEIGHT, WIDTH))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]))
def test_polygons_with_few_digits_are_those_of_pycocotools(seed: int, digits: int) -> None:
    # pycocotools rounds to fifths of a pixel, and coordinates of one digit lie halfway between them.
    generator = np.random.default_rng(seed)
    for _ in range(10):
        outline = np.round(generator.uniform(100, 280, (9, 2)), digits)
        np.testing.assert_array_equal(_drawn(outline, 256, 256), _by_pycocotools(outline, 256, 256))


def _geojson(*features: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def _feature(rings: list[list[list[int]]], name: str | None, kind: str = "Polygon") -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "annotation"}
    if name:
        properties["classification"] = {"name": name, "color": [200, 0, len(name)]}
    coordinates: Any = [rings] if kind == "MultiPolygon" else rings
    return {
        "type": "Feature",
        "id": "x",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def test_all_formats_draw_the_same_square(tmp_path: Path, images: Path) -> None:
    flat = [value for point in SQUARE for value in point]
    shares = " ".join(str(value / side) for point in SQUARE for value, side in zip(point, (WIDTH, HEIGHT), strict=True))
    shape = {"label": "tumor", "points": SQUARE, "shape_type": "polygon"}
    corners = {"label": "tumor", "points": [SQUARE[0], SQUARE[2]], "shape_type": "rectangle"}
    sources = {
        "coco": _write(tmp_path, _coco({"segmentation": [flat]}, categories=(3,))),
        "geojson": _write(tmp_path, _geojson(_feature([_closed(SQUARE)], "tumor")), "qupath/a.geojson").parent,
        "labelme": _write(tmp_path, {"shapes": [shape], "imageWidth": WIDTH, "imageHeight": HEIGHT}, "lm/a.json"),
        "rectangle": _write(tmp_path, {"shapes": [corners]}, "rect/a.json").parent,
        "yolo": _write(tmp_path, f"0 {shares}\n", "labels/a.txt").parent,
    }
    for name, source in sources.items():
        out = tmp_path / f"out {name}"
        write_masks(source, images, out)
        np.testing.assert_array_equal(_read(out / "a.png") > 0, _expected())
        assert sorted(path.name for path in out.iterdir()) == ["a.png", "classes.tsv"]


def test_holes_parts_and_order(tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture) -> None:
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}
    square, triangle = _feature([_closed(SQUARE), _closed(HOLE)], "tumor"), _feature([_closed(TRIANGLE)], "stroma")
    over = _feature([_closed([[0, 0], [20, 0], [20, 20], [0, 20]])], "over", "MultiPolygon")
    path = _write(tmp_path, _geojson(square, triangle, over, point, _feature([_closed(HOLE)], None)), "q/a.geojson")
    drawn = write_masks(path.parent, images, tmp_path / "out")
    mask = _read(tmp_path / "out" / "a.png")
    codes = {entry.name: entry.code for entry in read_class_map(tmp_path / "out" / "classes.tsv")}
    assert codes == {"over": 1, "stroma": 2, "tumor": 3}
    square_only = _expected()
    square_only[10:15, 15:20] = False
    np.testing.assert_array_equal(
        mask == 3, square_only & ~np.logical_and.outer(np.arange(40) < 20, np.arange(60) < 20)
    )
    # Later outlines lie above earlier ones, and what they cover is counted by class.
    assert drawn.covered_px == {("tumor", "over"): int(square_only[:20, :20].sum())}
    assert "images without annotations get no mask: 1, such as b" in caplog.text
    assert "annotations that are left out: 1 (points and lines)" in caplog.text
    assert "annotations that are left out: 1 (areas without a class)" in caplog.text
    colors = {entry.name: entry.color for entry in read_class_map(tmp_path / "out" / "classes.tsv")}
    assert colors["tumor"] == (200, 0, 5)


def test_instances_keep_their_ids_and_build_a_store(tmp_path: Path, images: Path, monkeypatch) -> None:
    left = {"label": "cell", "points": SQUARE, "group_id": 4}
    other = {"label": "cell", "points": TRIANGLE, "group_id": 4}
    lone = {"label": "duct", "points": [[0, 30], [9, 30], [9, 39], [0, 39]], "group_id": None}
    _write(tmp_path, {"shapes": [left, lone, other]}, "lm/a.json")
    (images / "b.jpg").unlink()
    write_masks(tmp_path / "lm", images, tmp_path / "masks", instances=True)
    mask = _read(tmp_path / "masks" / "a.png")
    assert set(np.unique(mask)) == {0, 1, 2}
    assert (mask == 1)[10, 12]
    assert (mask == 1)[10, 45]
    assert (tmp_path / "masks" / "instances.csv").read_text() == "frame_id,id,class\na,1,cell\na,2,duct\n"
    flags = ["--objects", "instance", "--instance-classes", str(tmp_path / "masks" / "instances.csv")]
    more = ["--class-map", str(tmp_path / "masks" / "classes.tsv"), "--size", "64", "--workers", "1"]
    out = str(tmp_path / "s.zarr")
    monkeypatch.setattr(sys, "argv", ["bcss-prep", "build", str(tmp_path), "--out", out, *flags, *more])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    store = open_store(out)
    assert [info.name for info in store.manifest.classes] == ["cell", "duct"]
    np.testing.assert_array_equal(store[0].segments[0][:HEIGHT, :WIDTH], mask == 1)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("{", "coco.json", "is not JSON"),
        ({"a": 1}, "coco.json", "is neither COCO, GeoJSON nor Labelme"),
        ({"images": [], "annotations": []}, "coco.json", r"is not a COCO file \(categories: Field required\)"),
        (_coco({"category_id": 4}), "coco.json", "annotation 0: names category 4, which the file does not list"),
        (_coco({"segmentation": [[1, 2, 3, 4]]}), "coco.json", "has an outline of fewer than three points"),
        (_coco({"segmentation": {"size": [40, 60], "counts": [1]}}), "coco.json", "run lengths that do not fill"),
        (_coco({"segmentation": {"size": [40, 60], "counts": "~~~~~~~~~~~~~~"}}), "coco.json", "do not fill its image"),
        (_coco({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}), "coco.json", "has an outline far outside a"),
        (
            _geojson({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0]]]}}),
            "a.geojson",
            "is not GeoJSON",
        ),
        ({"shapes": [{"label": "x", "points": [[0, 0]]}]}, "a.json", "is a polygon of 1 points"),
        ({"shapes": [], "imageWidth": 7, "imageHeight": 7}, "a.json", "says that a is 7 x 7 px, but it is 60 x 40 px"),
        ({"shapes": []}, "z.json", "annotates none of the 2 images"),
    ],
)
def test_bad_annotations_are_one_line_and_write_nothing(
    tmp_path: Path, images: Path, content: object, name: str, message: str
) -> None:
    path = _write(tmp_path, content, name)
    with pytest.raises(SourceError, match=message) as caught:
        write_masks(path, images, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["images", name])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1 0.1", "is a box, not an outline"),
        ("x 1", "is not a row of numbers"),
        ("-1 0 0 1 1 0 1", "has the class"),
    ],
)
def test_bad_lines_of_yolo_are_named(tmp_path: Path, images: Path, line: str, message: str) -> None:
    _write(tmp_path, f"\n{line}\n", "labels/a.txt")
    with pytest.raises(SourceError, match=f"a.txt line 2: {message}"):
        write_masks(tmp_path / "labels", images, tmp_path / "out")


def test_class_map_gives_the_codes(tmp_path: Path, images: Path) -> None:
    path = _write(tmp_path, _geojson(_feature([_closed(SQUARE)], "tumor")), "a.geojson")
    entries = (ClassEntry(code=300, name="tumor"), ClassEntry(code=2, name="stroma"))
    write_masks(path, images, tmp_path / "out", entries)
    np.testing.assert_array_equal(_read(tmp_path / "out" / "a.png"), _expected() * 300)
    with pytest.raises(ConfigError, match="--class-map: lacks the class tumor"):
        write_masks(path, images, tmp_path / "other", entries[1:])
    with pytest.raises(BcssError, match="is not empty"):
        write_masks(path, images, tmp_path / "out", entries)


def test_names_of_yolo_classes_and_crowds(tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data").mkdir()
    _write(tmp_path, "1 0 0 0.5 0 0.5 0.5\n", "data/labels/a.txt")
    _write(tmp_path, "names:\n  0: cat\n  1: dog\n", "data/data.yaml")
    write_masks(tmp_path / "data" / "labels", images, tmp_path / "out")
    assert [(entry.code, entry.name) for entry in read_class_map(tmp_path / "out" / "classes.tsv")] == [(2, "dog")]
    flat = [value for point in SQUARE for value in point]
    path = _write(tmp_path, _coco({"segmentation": [flat], "iscrowd": 1}, {"segmentation": [flat]}, {}))
    write_masks(path, images, tmp_path / "instances", instances=True)
    assert "crowd areas (many instances in one outline) get the class ignore" in caplog.text
    assert "annotations that are left out: 1 (only a box or keypoints)" in caplog.text
    # The instance is drawn over the crowd area, which has the same outline here.
    np.testing.assert_array_equal(_read(tmp_path / "instances" / "a.png"), _expected() * 2)


def test_build_ignores_crowd_areas(tmp_path: Path, images: Path) -> None:
    wide = [0, 0, 20, 0, 20, 16, 0, 16]
    flat = [value for point in SQUARE for value in point]
    path = _write(tmp_path, _coco({"segmentation": [flat]}, {"segmentation": [wide], "iscrowd": 1}))
    write_masks(path, images, tmp_path / "out", instances=True)
    classes = read_class_map(tmp_path / "out" / "classes.tsv")
    ignored = next(entry.code for entry in classes if entry.name == "ignore")
    table = read_instance_classes(tmp_path / "out" / "instances.csv")
    values = _read(tmp_path / "out" / "a.png")
    crowd = next(value for (_, value), name in table.items() if name == "ignore")
    outline = np.zeros(values.shape, bool)
    outline[:16, :20] = True
    np.testing.assert_array_equal(values == crowd, outline & ~_expected())
    rules = dataset_rules([], GivenRules("instances", class_map=classes, has_class_of_instances=True))
    assert rules.ignore == (ignored,)
    names = {3: "class 3", 9: "class 9", 11: "unused"}
    for last, wanted in (({}, 12), ({255: "ignore"}, 255)):
        given = tuple(ClassEntry(code=code, name=name) for code, name in (names | last).items())
        write_masks(path, images, tmp_path / str(wanted), given, instances=True)
        entries = read_class_map(tmp_path / str(wanted) / "classes.tsv")
        assert [entry.code for entry in entries if entry.name == "ignore"] == [wanted]


def test_command_says_what_it_drew(tmp_path: Path, images: Path, monkeypatch, capsys) -> None:
    twice = _geojson(_feature([_closed(SQUARE)], "tumor"), _feature([_closed(SQUARE)], "stroma"))
    path = _write(tmp_path, twice, "a.geojson")
    arguments = ["masks", str(path), "--images", str(images), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["bcss-prep", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "tumor: 1 outlines" in printed
    assert "stroma covers 400 px of tumor: later outlines lie above earlier ones" in printed
    assert "1 outlines left no pixel" in printed
    assert "--class-map" in printed


def test_each_outline_without_a_pixel_is_counted(tmp_path: Path, images: Path) -> None:
    far = [[70, 5], [90, 5], [90, 25], [70, 25]]
    features = [_feature([_closed(ring)], "tumor") for ring in (SQUARE, far, TRIANGLE, TRIANGLE)]
    # The last one hides both triangles of tumor; the square of tumor stays.
    features.append(_feature([_closed(TRIANGLE)], "stroma"))
    path = _write(tmp_path, _geojson(*features), "a.geojson")
    assert write_masks(path, images, tmp_path / "out").hidden == 3
    # An outline that another one of its class covers is in the mask.
    twice = _write(tmp_path, _geojson(*[_feature([_closed(SQUARE)], "tumor")] * 2), "b.geojson")
    assert write_masks(twice, images, tmp_path / "same").hidden == 0


def test_areas_of_a_collection_are_drawn_and_a_hole_of_no_numbers_is_refused(tmp_path: Path, images: Path) -> None:
    area = _feature([_closed(SQUARE)], "tumor")
    area["geometry"] = {
        "type": "GeometryCollection",
        "geometries": [{"type": "Point", "coordinates": [1, 2]}, area["geometry"]],
    }
    write_masks(_write(tmp_path, _geojson(area), "a.geojson"), images, tmp_path / "out")
    np.testing.assert_array_equal(_read(tmp_path / "out" / "a.png"), _expected())
    hole: Any = [[20, 20], [float("nan"), 20], [25, 25]]
    path = _write(tmp_path, _geojson(_feature([_closed(SQUARE), _closed(hole)], "tumor")), "b.geojson")
    with pytest.raises(SourceError, match="feature 0: has a coordinate that is not a number"):
        write_masks(path, images, tmp_path / "none")


def test_category_0_shifts_all_codes_whether_it_is_used_or_not(
    tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    flat = [value for point in SQUARE for value in point]
    for used in (3, 0):
        content = _coco({"segmentation": [flat], "category_id": used}, categories=(0, 3, 9))
        write_masks(_write(tmp_path, content), images, tmp_path / f"out {used}")
        assert (tmp_path / f"out {used}" / "classes.tsv").read_text().split("\n")[1:4] == [
            "1\tclass 0\t",
            "4\tclass 3\t",
            "10\tclass 9\t",
        ]
        np.testing.assert_array_equal(_read(tmp_path / f"out {used}" / "a.png"), _expected() * (used + 1))
    assert "it has a category 0, so each code is the id of its category plus 1" in caplog.text


def test_two_classes_of_yolo_with_one_name_are_refused(tmp_path: Path, images: Path) -> None:
    labels = _write(tmp_path, "0 .1 .1 .5 .1 .5 .5\n1 .1 .1 .5 .1 .5 .5\n", "labels/a.txt").parent
    (labels / "classes.txt").write_text("cell\ncell\n")
    with pytest.raises(SourceError, match="class 1, whose name cell is also that of the class 0"):
        write_masks(labels, images, tmp_path / "out")


def test_masks_can_be_written_to_the_current_folder(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, _geojson(_feature([_closed(SQUARE)], "tumor")), "a.geojson")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_masks(path, images, Path())
    np.testing.assert_array_equal(_read(tmp_path / "here" / "a.png"), _expected())


def test_classes_of_several_files_stay_apart(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "ann"
    square = {"segmentation": [[value for point in SQUARE for value in point]]}
    first, second = _coco(square, categories=(3,)), _coco(square, categories=(3,))
    second["images"][0]["file_name"] = "b.jpg"
    _write(folder, first, "a.json")
    second["categories"][0]["name"] = "stroma"
    _write(folder, second, "b.json")
    with pytest.raises(SourceError, match="gives the class stroma the code 3, which is class 3 in another file"):
        write_masks(folder, images, tmp_path / "out")
    labelme = {"label": "stroma", "points": SQUARE, "shape_type": "polygon"}
    _write(folder, {"shapes": [labelme], "imagePath": "b.jpg", "imageWidth": WIDTH, "imageHeight": HEIGHT}, "b.json")
    with pytest.raises(SourceError, match="class stroma: is used, but the files that give codes give none to it"):
        write_masks(folder, images, tmp_path / "out")
    _write(folder, _coco(square, categories=(3,)), "a.json")
    (folder / "c.json").write_bytes(b"\xff{}")
    (folder / "d.json").write_text("{")
    with pytest.raises(SourceError) as caught:
        write_masks(folder, images, tmp_path / "out")
    assert "c.json: is not UTF-8" in str(caught.value)
    assert "d.json: is not JSON" in str(caught.value)


def test_qupaths_regions_are_left_out_and_its_exports_fit_ome_tiff(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "slide 0.ome.tif")
    content = _geojson(_feature([_closed(SQUARE)], "Tumor"), _feature([_closed(TRIANGLE)], "Region*"))
    _write(tmp_path / "ann", content, "slide 0.geojson")
    drawn = write_masks(tmp_path / "ann", tmp_path / "images", tmp_path / "masks")
    assert dict(drawn.areas) == {"Tumor": 1}
    assert "annotations that are left out: 1 (areas of QuPath's class Region*" in caplog.text
    (roi,) = find_rois(tmp_path).rois
    assert (roi.frame_id, roi.image_path.name) == ("slide 0", "slide 0.ome.tif")
    np.testing.assert_array_equal(_read(tmp_path / "masks" / "slide 0.ome.png") > 0, _expected())
