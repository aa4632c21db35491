"""Textured tissue: classes differ by what lies in them, also where their colors are alike."""

import numpy as np
import pytest
from numpy.typing import NDArray

from prep.sample.field import fibers
from prep.sample.textured_tissue import draw_textured
from prep.sample.tissue_class import EXCLUDE, LYMPHOCYTES, NECROSIS, OUTSIDE, STROMA, TUMOR, VESSEL

CLASSES = (TUMOR, STROMA, LYMPHOCYTES, NECROSIS)


@pytest.fixture(scope="module")
def rois() -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Four ROIs."""
    return [draw_textured(512, 576, np.random.default_rng([9, number])) for number in range(4)]


def test_fibers_run_along_their_direction() -> None:
    for angle in (0.0, np.pi / 2):
        field = fibers(np.full((200, 200), angle, np.float32), 3, 10, np.random.default_rng(0))
        along_x, along_y = (float((field * np.roll(field, 6, axis)).mean()) for axis in (1, 0))
        along, across = (along_x, along_y) if angle == 0 else (along_y, along_x)
        assert field.std() == pytest.approx(1, abs=0.01)
        assert along > 0.6
        assert abs(across) < 0.4


def test_labels_have_the_usual_classes(rois: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    for image, labels in rois:
        assert image.shape == (512, 576, 3)
        assert labels.shape == (512, 576)
        assert labels[5, 5] == labels[-6, -6] == OUTSIDE
        assert set(np.unique(labels).tolist()) <= {*CLASSES, OUTSIDE, EXCLUDE, VESSEL}
    assert all(any((labels == code).mean() > 0.02 for _, labels in rois) for code in CLASSES)


def test_nuclei_tell_classes_apart(rois: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    crowded: list[float] = []
    sparse: list[float] = []
    for image, labels in rois:
        dark = image[..., 0] < np.quantile(image[..., 0], 0.25)
        if (labels == LYMPHOCYTES).mean() > 0.02 and (labels == STROMA).mean() > 0.02:
            crowded.append(float(dark[labels == LYMPHOCYTES].mean()))
            sparse.append(float(dark[labels == STROMA].mean()))
    assert crowded
    assert np.mean(crowded) > 2 * np.mean(sparse)


def test_colors_differ_more_from_roi_to_roi_than_between_classes(
    rois: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> None:
    medians = {
        code: np.array([np.median(image[labels == code], 0) for image, labels in rois if (labels == code).any()])
        for code in (TUMOR, STROMA)
    }
    spread = np.mean([np.ptp(colors, axis=0).max() for colors in medians.values()])
    between = np.abs(medians[TUMOR].mean(0) - medians[STROMA].mean(0)).max()
    assert spread > between


def test_same_generator_draws_the_same_bytes(rois: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    for again, before in zip(draw_textured(512, 576, np.random.default_rng([9, 0])), rois[0], strict=True):
        np.testing.assert_array_equal(again, before)
