"""Textured tissue: classes differ by what lies in them, also where their colors are alike."""

import numpy as np
import pytest
from numpy.typing import NDArray

from prep.sample.field import fibers
from prep.sample.flat_tissue import draw_flat, random_flat_tissue
from prep.sample.textured_tissue import draw_textured, paint_textured
from prep.sample.tissue_class import EXCLUDE, LYMPHOCYTES, NECROSIS, OUTSIDE, STROMA, TUMOR, VESSEL

CLASSES = (TUMOR, STROMA, LYMPHOCYTES, NECROSIS)


@pytest.fixture(scope="module")
def rois() -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Four ROIs."""
    return [draw_textured(384, 432, np.random.default_rng([9, number])) for number in range(4)]


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
        assert image.shape == (384, 432, 3)
        assert labels.shape == (384, 432)
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


def test_tissue_is_painted_where_its_class_is() -> None:
    tissue = np.full((256, 256), EXCLUDE, np.uint8)
    tissue[:, 128:] = LYMPHOCYTES
    image = paint_textured(tissue, np.random.default_rng(3))
    assert image[:, :120].mean() > 215
    assert image[:, 136:].mean() < 180


def test_color_alone_does_not_tell_a_class(rois: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    flat = [_drawn_flat(number) for number in range(4)]
    assert np.mean([_share_told_by_color(*roi) for roi in flat]) > 0.75
    assert np.mean([_share_told_by_color(*roi) for roi in rois]) < 0.65


def test_slides_have_gaps(rois: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    for image, labels in rois:
        empty = image.min(2) > 215
        assert 0.001 < empty[np.isin(labels, (TUMOR, STROMA, NECROSIS))].mean() < 0.15


def _drawn_flat(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    generator = np.random.default_rng([9, number])
    return draw_flat(384, 432, generator, random_flat_tissue(generator))


def _share_told_by_color(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    """Give each pixel the class whose median color is the nearest, and return the share that is right."""
    present = [code for code in CLASSES if (labels == code).mean() > 0.01]
    medians = np.array([np.median(image[labels == code], 0) for code in present])
    inside = np.isin(labels, present)
    distance = np.square(image[inside][:, None].astype(float) - medians).sum(-1)
    return float((np.array(present)[distance.argmin(1)] == labels[inside]).mean())


def test_same_generator_draws_the_same_bytes(rois: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    for again, before in zip(draw_textured(384, 432, np.random.default_rng([9, 0])), rois[0], strict=True):
        np.testing.assert_array_equal(again, before)
