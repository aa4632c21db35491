from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prep.derive.points import DERIVATIONS, PaddedPoints, derive_points
from prep.derive.segments import Segment, label_segments
from prep.derive.tiles import cut_tiles
from schemas.prompt_kinds import POINT_SETS, PointCounts
from tests.prep.derive.plain_points import plain_points

# SciPy's type hints do not tell which of its results a call returns.
ndimage: Any = scipy.ndimage

IMAGES = arrays(np.uint8, (24, 24), elements=st.integers(0, 3))


def _points(
    labels: np.ndarray, positive: int = 4, negative: int = 4
) -> tuple[Segment, np.ndarray, dict[str, PaddedPoints]]:
    (tile,) = cut_tiles(np.zeros((*labels.shape, 3), np.uint8), labels, labels.shape[0], labels.shape[0])
    (segment,) = label_segments(tile, tile.labels, frozenset({1}), 1)
    # Code 3 stands for an ignored class.
    background = (labels != 1) & (labels != 3)
    counts = PointCounts(positive, negative)
    return segment, background, derive_points(segment, background, counts, np.random.default_rng(0))


@given(IMAGES, st.integers(1, 6), st.integers(0, 6))
def test_points_lie_where_their_labels_say(labels: np.ndarray, positive: int, negative: int) -> None:
    assume((labels == 1).any())
    segment, background, points = _points(labels, positive, negative)
    (x, y) = points["interior"].coords[0].astype(int)
    assert segment.mask[y, x]
    _check(points["positive"], 1, segment.mask)
    _check(points["negative"], 0, background)
    assert points["positive"].labels[0] == 1
    assert points["positive"].coords[0].tolist() == [x, y]
    # Padding is allowed only if too few pixels may hold a negative point.
    assert (points["negative"].labels == 0).sum() >= min(negative, background.sum())


@given(
    st.tuples(st.integers(8, 700), st.integers(8, 700)),
    st.integers(0, 99),
    st.sampled_from([0.05, 0.3, 0.8]),
    st.sampled_from([1, 6, 40]),
    st.integers(0, 9),
)
@settings(max_examples=40)
def test_points_equal_those_of_plain_code(
    size: tuple[int, int], seed: int, fraction: float, smooth_px: int, negative: int
) -> None:
    generator = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(generator.random(size), smooth_px)
    labels = np.zeros((1024, 1024), np.uint8)
    y, x = generator.integers(0, 1024 - np.array(size), endpoint=True)
    labels[y : y + size[0], x : x + size[1]] = noise >= np.quantile(noise, 1 - fraction)
    background = (labels != 1) & (generator.random(labels.shape) < 0.9)
    (tile,) = cut_tiles(np.zeros((*labels.shape, 3), np.uint8), labels, 1024, 1024)
    (segment,) = label_segments(tile, tile.labels, frozenset({1}), 1)
    counts = PointCounts(5, negative)
    found = derive_points(segment, background, counts, np.random.default_rng(0))
    for name, plain in plain_points(segment, background, counts, np.random.default_rng(0)).items():
        assert found[name].coords[found[name].labels >= 0].tolist() == plain.tolist()


def test_depths_that_differ_in_their_last_bit_decide_as_on_the_whole_grid() -> None:
    """The deepest pixels of a ring are equally deep, apart from rounding, which depends on the column."""
    y, x = np.ogrid[:400, :400]
    distance = np.hypot(y - 200, x - 203)
    labels = ((distance >= 20) & (distance <= 132)).astype(np.uint8)
    segment, background, found = _points(labels)
    plain = plain_points(segment, background, PointCounts(4, 4), np.random.default_rng(0))
    for name, points in plain.items():
        assert found[name].coords.tolist() == points.tolist()


def _check(points: PaddedPoints, label: int, allowed: np.ndarray) -> None:
    coords, labels = points.coords, points.labels
    real = coords[labels == label].astype(int)
    assert allowed[real[:, 1], real[:, 0]].all()
    assert len({tuple(point) for point in real.tolist()}) == len(real)
    assert set(labels.tolist()) <= {label, -1}
    assert not coords[labels == -1].any()


def test_centroid_is_taken_where_it_lies_on_the_segment() -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[4:13, 6:17] = 1
    _, _, points = _points(labels)
    assert points["interior"].coords.tolist() == [[11, 8]]


def test_ring_takes_the_pixel_farthest_from_its_border() -> None:
    y, x = np.mgrid[:64, :64]
    radius = np.hypot(x - 32, y - 32)
    labels = ((radius > 12) & (radius < 24)).astype(np.uint8)
    segment, _, points = _points(labels)
    depth = ndimage.distance_transform_edt(segment.mask)
    (px, py) = points["interior"].coords[0].astype(int)
    assert depth[py, px] > 0.9 * depth.max()


@pytest.mark.parametrize(("first", "last"), [(100, 902), (100, 903), (101, 900)])
def test_frame_of_one_pixel_between_the_lines_of_the_grid_has_all_its_points(first: int, last: int) -> None:
    labels = np.zeros((1024, 1024), np.uint8)
    labels[first : last + 1, first : last + 1] = 1
    labels[first + 1 : last, first + 1 : last] = 0
    segment, background, points = _points(labels, 8, 8)
    assert points["positive"].labels.tolist() == [1] * 8
    assert points["positive"].coords[0].tolist() == points["interior"].coords[0].tolist()
    _check(points["positive"], 1, segment.mask)
    _check(points["negative"], 0, background)
    assert points["negative"].labels.tolist() == [0] * 8


def test_positive_points_reach_every_part_of_a_label_object() -> None:
    labels = np.zeros((96, 96), np.uint8)
    labels[8:40, 8:40] = labels[70:90, 70:90] = 1
    segment, _, points = _points(labels)
    parts, count = ndimage.label(segment.mask)
    x, y = points["positive"].coords.astype(int).T
    assert count == 2
    assert set(parts[y, x]) == {1, 2}


def test_positive_points_keep_off_the_outline() -> None:
    labels = np.zeros((96, 96), np.uint8)
    labels[10:80, 10:80] = 1
    labels[85:91, 85:91] = 1
    segment, _, points = _points(labels, positive=16)
    depth = ndimage.distance_transform_edt(segment.mask)
    x, y = points["positive"].coords.astype(int).T
    large = (x < 80) & (y < 80)
    assert large.sum() >= 12
    assert not large.all()
    assert depth[y, x][large].min() >= 8
    # The small part is 3 px deep, and points keep half of that.
    assert depth[y, x][~large].min() >= 1.5


def test_candidates_are_drawn_where_there_are_many() -> None:
    labels = np.zeros((256, 256), np.uint8)
    labels[64:192, 64:192] = 1
    (tile,) = cut_tiles(np.zeros((*labels.shape, 3), np.uint8), labels, 256, 256)
    (segment,) = label_segments(tile, tile.labels, frozenset({1}), 1)
    found = [derive_points(segment, labels != 1, PointCounts(8, 8), np.random.default_rng(seed)) for seed in (0, 1)]
    assert found[0]["positive"].coords.tolist() != found[1]["positive"].coords.tolist()
    assert found[0]["negative"].coords.tolist() != found[1]["negative"].coords.tolist()


def test_negative_points_are_near_and_not_on_the_outline() -> None:
    labels = np.zeros((256, 256), np.uint8)
    labels[100:140, 100:140] = 1
    segment, _, points = _points(labels, negative=8)
    distance = ndimage.distance_transform_edt(~segment.mask)
    x, y = points["negative"].coords.astype(int).T
    assert (distance[y, x] > 2).all()
    assert (distance[y, x] < 55).all()
    assert (points["negative"].labels == 0).all()


@pytest.mark.parametrize("code", [1, 3])
def test_without_room_negative_points_are_padding(code: int) -> None:
    labels = np.full((16, 16), code, np.uint8)
    labels[:8, :8] = 1
    _, _, points = _points(labels)
    assert points["negative"].labels.tolist() == [-1] * 4
    assert not points["negative"].coords.any()


def test_every_set_of_points_has_its_derivation() -> None:
    assert list(DERIVATIONS) == list(POINT_SETS)
