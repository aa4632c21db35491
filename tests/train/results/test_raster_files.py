"""Label images: their pixels, their pyramids, and which of two objects they show."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import tifffile

from schemas.picture.decode import read_mask
from train.results.found_object import FoundObject
from train.results.placed_object import placed
from train.results.raster_files import LabelImage
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid

ALL = "geojson,masks,coco,csv,overlay"
EVERYTHING = ["--automatic", "--grid", "4", "--iou-threshold", "0", "--stability-threshold", "0"]


def test_large_labels_are_a_tiled_pyramid_with_the_same_bytes(tmp_path: Path, monkeypatch) -> None:
    import train.results.raster_files as raster

    monkeypatch.setattr(raster, "PNG_MAX_PX", 1000)
    monkeypatch.setattr(raster, "TILES_PER_READ", 2)
    grid = WorkingGrid.of(Picture(np.zeros((700, 1300, 3), np.uint8)))
    cut = [FoundObject.from_mask(np.ones((40, 50), bool), (x, 300), 0.9, 1.0) for x in range(0, 1200, 100)]
    objects = [item for item in cut if item is not None]
    for name in ("a", "b"):
        labels = LabelImage(tmp_path / name, grid)
        for item in placed(objects, grid):
            labels.add(item)
        labels.close()
    assert (tmp_path / "a.ome.tif").read_bytes() == (tmp_path / "b.ome.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        series = tiff.series[0]
        assert tiff.is_ome
        assert [level.shape for level in series.levels] == [(700, 1300), (350, 650), (175, 325)]
        whole = series.levels[0].asarray()
        np.testing.assert_array_equal(series.levels[1].asarray(), whole[::2, ::2])
    painted = np.zeros((700, 1300), int)
    for number, left in enumerate(range(0, 1200, 100), start=1):
        painted[300:340, left : left + 50] = number
    np.testing.assert_array_equal(whole, painted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif", "b.ome.tif"]


def test_label_image_shows_the_smaller_of_two_objects_in_any_order(tmp_path: Path) -> None:
    # Scale 2: an object of 10 x 10 px of the grid in one of 30 x 30 px, and one of 12 x 12 px beside it on both.
    grid = WorkingGrid.of(Picture(np.zeros((80, 100, 3), np.uint8), mpp_um=0.25), 0.5)
    places = {"small": (10, (12, 12)), "large": (30, (2, 2)), "middle": (12, (20, 20))}
    expected = np.full((80, 100), "", object)
    for name in ("large", "middle", "small"):
        side, (left, top) = places[name]
        expected[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)] = name
    for order in itertools.permutations(places):
        labels = LabelImage(tmp_path / "a", grid)
        cut = [
            FoundObject.from_mask(np.ones((side, side), bool), at, 0.9, 1.0)
            for side, at in map(places.__getitem__, order)
        ]
        for item in placed([item for item in cut if item is not None], grid):
            labels.add(item)
        labels.close()
        np.testing.assert_array_equal(np.array(["", *order], object)[read_mask(tmp_path / "a.png")], expected)


def test_label_image_takes_more_objects_than_it_expects(tmp_path: Path) -> None:
    grid = WorkingGrid.of(Picture(np.zeros((1, 1200, 3), np.uint8)))
    labels = LabelImage(tmp_path / "a", grid)
    cut = [FoundObject.from_mask(np.ones((1, 2), bool), (x, 0), 0.9, 1.0) for x in range(1199)]
    for item in placed([item for item in cut if item is not None], grid):
        labels.add(item)
    labels.close()
    # The later of two objects of the same size is shown.
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png")[0], [*range(1, 1200), 1199])
