"""Which pixels of a ROI count, where its points may lie, and what the points depend on."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from prep.config import BuildConfig
from prep.derive.decoded_roi import DecodedRoi
from prep.derive.prepared_tile import PreparedTile, object_row, prepare_tiles
from prep.source.discover import RoiSource


def _tiles(labels: np.ndarray, frame_id: str = "a", **settings: object) -> list[PreparedTile]:
    config = BuildConfig.model_validate({"size_px": 64, **settings})
    size = labels.shape[1], labels.shape[0]
    image = np.zeros((*labels.shape, 3), np.uint8)
    pixels = DecodedRoi(image, labels, config.wanted(np.unique(labels).tolist()), size, (1.0, 1.0), {})
    roi = RoiSource(frame_id, Path("images/a.png"), Path("masks/a.png"), "a", "A1", None)
    return list(prepare_tiles(roi, pixels, config))


def test_padding_is_ignored_whatever_its_code() -> None:
    # Padding has code 0, which here is not ignored and becomes an object.
    (tile,) = _tiles(np.zeros((40, 48), np.uint8), classes="all", ignore=(7,))
    expected = np.ones((64, 64), bool)
    expected[:40, :48] = False
    np.testing.assert_array_equal(tile.ignore, expected)
    (item,) = tile.objects
    assert item.segment.area_px == 40 * 48
    assert item.points["negative"].labels.tolist() == [-1] * 8


def test_no_negative_point_lies_on_another_component_of_the_class() -> None:
    labels = np.ones((64, 64), np.uint8)
    # Two parts of class 1, and between them the only pixels of another class.
    labels[:, 31:33] = 2
    (tile,) = _tiles(labels, objects="component", classes=(1,), min_area_px=1)
    assert len(tile.objects) == 2
    for item in tile.objects:
        assert item.points["negative"].labels.tolist() == [0] * 8
        x, y = item.points["negative"].coords.astype(int).T
        assert (labels[y, x] == 2).all()


def test_roi_component_is_numbered_in_the_whole_roi() -> None:
    labels = np.zeros((64, 128), np.uint8)
    labels[4:30, 4:30] = 1
    labels[40:60, 20:110] = 1
    tiles = _tiles(labels, objects="component", classes=(1,), min_area_px=1)
    parts = [[object_row(0, item)["objects/roi_component"] for item in tile.objects] for tile in tiles]
    (small, wide), (wide_again,) = parts
    assert wide == wide_again != small
    assert small


@pytest.mark.parametrize("change", ["seed", "tile", "roi"])
def test_points_of_equal_segments_differ_by_seed_tile_and_roi(change: str) -> None:
    # More pixels than candidates, so that candidates are drawn.
    labels = np.full((128, 256), 2, np.uint8)
    labels[:, :64] = labels[:, 128:192] = 1
    (first, second) = _tiles(labels, size_px=128)
    others = {
        "seed": _tiles(labels, size_px=128, seed=1)[0],
        "tile": second,
        "roi": _tiles(labels, frame_id="b", size_px=128)[0],
    }
    for ours, theirs in zip(first.objects, others[change].objects, strict=True):
        np.testing.assert_array_equal(ours.segment.mask, theirs.segment.mask)
        assert ours.points["positive"].coords.tolist() != theirs.points["positive"].coords.tolist()
    (again, _) = _tiles(labels, size_px=128)
    for ours, theirs in zip(first.objects, again.objects, strict=True):
        np.testing.assert_array_equal(ours.points["positive"].coords, theirs.points["positive"].coords)
        np.testing.assert_array_equal(ours.points["negative"].coords, theirs.points["negative"].coords)


@pytest.mark.parametrize("objects", ["label", "component"])
def test_memory_grows_with_the_areas_of_objects(objects: str) -> None:
    # A mask of instances: 400 squares, each of a class of its own.
    numbers = np.arange(1, 401, dtype=np.uint16).reshape(20, 20)
    labels = np.kron(numbers, np.pad(np.ones((10, 10), np.uint16), 1))
    tracemalloc.start()
    (tile,) = _tiles(labels, size_px=240, classes=tuple(range(1, 401)), ignore=(), objects=objects)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [item.segment.area_px for item in tile.objects] == [100] * 400
    assert peak < 100 * labels.size
