import numpy as np
import pytest

from schemas.classes import ClassInfo
from schemas.store.store import Store
from train.output.class_images import ClassImages, Roi

CLASSES = (ClassInfo(code=1, name="tumor", color=(10, 20, 30)), ClassInfo(code=3, name="stroma", color=(40, 50, 60)))


def test_without_a_palette_the_classes_give_the_colors() -> None:
    image = ClassImages(CLASSES, {"a": Roi(2, 1)}).image(np.array([[1, 3]], np.uint8), "a")
    assert np.asarray(image).tolist() == [[1, 3]]
    assert np.asarray(image.convert("RGB")).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_the_palette_of_the_source_is_preferred() -> None:
    image = ClassImages(CLASSES, {"a": Roi(2, 1, "000000" + "ff0001")}).image(np.array([[0, 1]], np.uint8), "a")
    assert np.asarray(image.convert("RGB")).tolist() == [[[0, 0, 0], [255, 0, 1]]]


def test_codes_of_two_bytes_are_unchanged() -> None:
    image = ClassImages(CLASSES, {"a": Roi(2, 1)}).image(np.array([[0, 1000]], np.uint16), "a")
    assert image.mode.startswith("I;16")
    assert np.asarray(image).tolist() == [[0, 1000]]


def test_a_store_gives_the_size_and_palette_of_each_roi(store: Store) -> None:
    images = ClassImages.from_store(store)
    assert list(images.classes) == list(store.manifest.classes)
    for source in store.manifest.sources:
        assert images.rois[source.frame_id] == Roi(source.width_px, source.height_px, source.palette)
    with pytest.raises(KeyError):
        images.image(np.zeros((1, 1), np.uint8), "absent")
