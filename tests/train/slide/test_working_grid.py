"""Windows of a grid show the pixels of the image at their place, black outside, and points go back to level 0."""

import numpy as np
import pytest

from schemas.errors import ConfigError
from train.slide.image_source import Picture
from train.slide.working_grid import WorkingGrid


def _pixels(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, 3), np.uint8)


def test_window_is_black_outside_the_region() -> None:
    pixels = _pixels()
    grid = WorkingGrid.of(Picture(pixels), region=(10, 20, 50, 30))
    assert grid.size_xy == (50, 30)
    window = grid.read(-4, 26, 8)
    np.testing.assert_array_equal(window[:4, 4:], pixels[46:50, 10:14])
    assert not window[4:].any()
    assert not window[:, :4].any()
    assert not grid.read(50, 0, 8).any()


def test_grid_at_half_the_resolution_averages_pixels() -> None:
    pixels = _pixels()
    grid = WorkingGrid.of(Picture(pixels, mpp_um=0.25), mpp_um=0.5)
    assert (grid.pixel_size_xy, grid.size_xy) == ((2.0, 2.0), (40, 30))
    means = pixels.reshape(30, 2, 40, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(grid.read(8, 4, 16), means[4:20, 8:24], atol=0.51)


def test_points_go_to_level_0_and_back() -> None:
    grid = WorkingGrid.of(Picture(_pixels(), mpp_um=0.25), mpp_um=0.5, region=(10, 20, 50, 30))
    points = np.array([[0.0, 0.0], [25.0, 15.0], [3.5, 7.25]])
    np.testing.assert_allclose(grid.to_level0(points), [[10, 20], [60, 50], [17, 34.5]])
    np.testing.assert_allclose(grid.from_level0(grid.to_level0(points)), points)


def test_preview_read_in_blocks_is_the_whole_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.slide.working_grid.BLOCK_PX", 16)
    pixels = _pixels()
    np.testing.assert_array_equal(WorkingGrid.of(Picture(pixels)).preview, pixels)


@pytest.mark.parametrize("region", [(70, 0, 20, 10), (0, 0, 0, 5), (-1, 0, 5, 5)])
def test_region_outside_the_image_is_refused(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError, match="--region: is not in image, which has 80 x 60 px"):
        WorkingGrid.of(Picture(_pixels()), region=region)


def test_resolution_of_the_model_needs_that_of_the_image() -> None:
    with pytest.raises(ConfigError, match=r"does not state its resolution.*--source-mpp"):
        WorkingGrid.of(Picture(_pixels()), mpp_um=0.5)
