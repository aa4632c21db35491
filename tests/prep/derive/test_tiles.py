import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prep.derive.tiles import cut_tiles, resample, resize_to_tile, tile_starts

SIDES = st.integers(1, 40)


@given(SIDES, SIDES, st.sampled_from([8, 16]), st.integers(1, 16))
def test_tiles_put_back_make_the_roi(height: int, width: int, size: int, stride: int) -> None:
    generator = np.random.default_rng([height, width])
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    labels = generator.integers(0, 256, (height, width), np.uint8)
    rebuilt = np.full((height, width, 4), -1)
    for tile in cut_tiles(image, labels, size, min(stride, size)):
        x, y = tile.origin_xy
        rows, columns = np.nonzero(tile.inside)
        rebuilt[rows + y, columns + x, :3] = tile.image[rows, columns]
        rebuilt[rows + y, columns + x, 3] = tile.labels[rows, columns]
        np.testing.assert_array_equal(tile.columns[columns], columns + x)
        assert not tile.image[~tile.inside].any()
    np.testing.assert_array_equal(rebuilt[..., :3], image)
    np.testing.assert_array_equal(rebuilt[..., 3], labels)


def test_last_tile_is_shifted_inside() -> None:
    assert tile_starts(20, 8, 8) == [0, 8, 12]
    assert tile_starts(16, 8, 8) == [0, 8]
    assert tile_starts(5, 8, 8) == [0]


def test_resize_takes_the_label_under_each_pixel_center() -> None:
    labels = np.array([[1, 2, 3, 4, 5, 6]] * 2, np.uint8)
    image = np.repeat(labels[..., None] * 10, 3, -1)
    tile = resize_to_tile(image, labels, 8)
    assert tile.labels[0].tolist() == [1, 2, 2, 3, 4, 5, 5, 6]
    assert tile.scale_xy == (8 / 6, 8 / 2)
    assert tile.inside.all()


def test_resize_averages_color_where_it_shrinks() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 1::2] = 200
    tile = resize_to_tile(image, np.zeros((16, 16), np.uint8), 8)
    assert set(np.unique(tile.image)) == {100}


def test_resize_blends_color_where_it_grows() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 2:] = 200
    tile = resize_to_tile(image, np.zeros((4, 4), np.uint8), 8)
    # Between the centers of the second and the third pixel, a quarter and three quarters of the way.
    assert tile.image[0, :, 0].tolist() == [0, 0, 0, 50, 150, 200, 200, 200]


def test_padded_tiles_keep_their_stride() -> None:
    assert tile_starts(20, 8, 8, "pad") == [0, 8, 16]
    assert tile_starts(16, 8, 8, "pad") == [0, 8]
    assert tile_starts(17, 8, 4, "pad") == [0, 4, 8, 12]


@given(SIDES, SIDES, st.sampled_from(["shift", "pad"]), st.sampled_from([0.25, 0.5, 0.8, 1.0]))
def test_resampled_tiles_know_their_place_in_the_source(height: int, width: int, edge, factor: float) -> None:
    generator = np.random.default_rng([height, width])
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    labels = generator.integers(0, 256, (height, width), np.uint8)
    small, small_labels, scale = resample(image, labels, factor)
    covered = np.zeros(small_labels.shape, bool)
    for tile in cut_tiles(small, small_labels, 8, 8, edge, scale):
        # The place in the resampled ROI follows from the place in the source.
        x, y = (round(origin * step) for origin, step in zip(tile.origin_xy, tile.scale_xy, strict=True))
        rows, columns = np.nonzero(tile.inside)
        np.testing.assert_array_equal(tile.labels[rows, columns], small_labels[rows + y, columns + x])
        covered[rows + y, columns + x] = True
    assert covered.all()
