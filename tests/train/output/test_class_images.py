import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 16, 17, 255, 256])
def test_every_code_comes_back_whatever_the_length_of_the_palette(tmp_path: Path, length: int) -> None:
    palette = "".join(f"{index:02x}{255 - index:02x}07" for index in range(length))
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ClassImages(CLASSES, {"a": Roi(16, 16, palette)}).image(codes, "a").save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as written:
        np.testing.assert_array_equal(np.asarray(written), codes)
        # OpenCV, which shares no code with Pillow, gives the colors of the codes.
        colors = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_COLOR_RGB)
        assert colors is not None
        np.testing.assert_array_equal(colors, np.asarray(written.convert("RGB")))
    for code in range(length):
        assert colors[code // 16, code % 16].tolist() == [code, 255 - code, 7]


@pytest.mark.parametrize(
    ("codes", "nothing", "dtype"),
    [
        ([1, 3], 0, np.uint8),
        ([0, 3], 255, np.uint8),
        ([0, 255, 254], 253, np.uint8),
        ([1, 1000], 0, np.uint16),
        (range(256), 65535, np.uint16),
    ],
)
def test_nothing_has_a_code_that_is_no_class(tmp_path: Path, codes: list[int], nothing: int, dtype: type) -> None:
    classes = [ClassInfo(code=code, name=f"c{code}", color=(0, 0, 0)) for code in codes]
    images = ClassImages(classes, {})
    assert (images.nothing_code, images.dtype) == (nothing, dtype)
    images.write_codes(tmp_path)
    written = json.loads((tmp_path / "classes.json").read_text())
    assert written["nothing"] == nothing
    assert [entry["code"] for entry in written["classes"]] == list(codes)
