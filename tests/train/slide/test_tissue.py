"""Tissue is told from the white of a slide."""

from __future__ import annotations

import numpy as np

from train.slide.image_source import Picture
from train.slide.tissue import TissueMask
from train.slide.working_grid import WorkingGrid


def test_windows_on_white_have_no_tissue_and_its_rim_belongs_to_it() -> None:
    image = np.full((400, 600, 3), (245, 240, 226), np.uint8)  # as glass in yellow light
    image += np.random.default_rng(0).integers(0, 4, image.shape, np.uint8)
    image[100:200, 100:260] = (200, 120, 180)
    tissue = TissueMask(WorkingGrid.of(Picture(image)))
    assert tissue.window(100, 100, 100).all()
    assert not tissue.window(300, 100, 100).any()
    assert not tissue.window(0, 250, 150).any()
    # The tissue ends at x = 260. Thin strands beyond its edge belong to it.
    assert tissue.window(262, 100, 50).any()


def test_grid_of_half_the_resolution_asks_for_the_same_place() -> None:
    image = np.full((400, 600, 3), 245, np.uint8)
    image[100:200, 100:260] = (200, 120, 180)
    tissue = TissueMask(WorkingGrid.of(Picture(image, mpp_um=0.25), mpp_um=0.5))
    assert tissue.window(50, 50, 50).all()
    assert not tissue.window(150, 50, 50).any()
