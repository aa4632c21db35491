"""Masks that were turned or resized with blending are told from masks that were drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from prep.derive.rims import BETWEEN_SHARE, MIN_PX, rim_classes
from prep.derive.segments import present_codes
from schemas.picture.decode import read_mask
from tests.conftest import WriteRoi

# SciPy's type hints do not tell which of its results a call returns.
ndimage: Any = scipy.ndimage


def _drawn() -> NDArray[np.uint8]:
    labels = np.zeros((200, 240), np.uint8)
    cv2.circle(labels, (80, 90), 60, 4, -1)
    cv2.ellipse(labels, (180, 120), (40, 70), 20, 0, 360, 1, -1)
    return labels


def test_drawn_masks_have_no_rims() -> None:
    labels = _drawn()
    assert rim_classes(labels, present_codes(labels)) == {}
    # A thin line of its own class, and a few pixels between two others, are drawn.
    labels[100, :] = 3
    labels[90, 140:150] = 2
    assert rim_classes(labels, present_codes(labels)) == {}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blended_masks_have_rims(dtype: type) -> None:
    drawn: Any = _drawn().astype(dtype)
    resized: Any = cv2.resize(drawn, (177, 151), interpolation=cv2.INTER_LINEAR)
    assert rim_classes(resized, present_codes(resized)).keys() >= {2, 3}
    turn = cv2.getRotationMatrix2D((120, 100), 17, 1)
    turned: Any = cv2.warpAffine(drawn, turn, (240, 200), flags=cv2.INTER_CUBIC)
    assert rim_classes(turned, present_codes(turned)).keys() >= {2, 3}
    nearest: Any = cv2.warpAffine(drawn, turn, (240, 200), flags=cv2.INTER_NEAREST)
    assert rim_classes(nearest, present_codes(nearest)) == {}


def _plain(labels: np.ndarray) -> dict[int, int]:
    """Look at every block of 3 x 3 and 5 x 5 pixels."""
    low, high = (of(labels, 3, mode="nearest") for of in (ndimage.minimum_filter, ndimage.maximum_filter))
    solid = set(labels[low == high].tolist())
    low, high = (of(labels, 5, mode="nearest") for of in (ndimage.minimum_filter, ndimage.maximum_filter))
    found: dict[int, int] = {}
    for code in np.unique(labels)[1:-1].tolist():
        is_code = labels == code
        between = is_code & (low < code) & (code < high)
        if code not in solid and is_code.sum() >= MIN_PX and between.sum() >= BETWEEN_SHARE * is_code.sum():
            found[code] = int(is_code.sum())
    return found


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.sampled_from([0, 4, 5])),
    st.tuples(st.integers(1, 90), st.integers(1, 40)),
    st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(1, 3)),
)
def test_rims_equal_those_of_a_look_at_every_block(
    drawn: np.ndarray, size: tuple[int, int], block: tuple[int, int, int]
) -> None:
    """Some rows are looked at first, so a block between them, or at a border, must count as well."""
    labels: Any = cv2.resize(drawn, size[::-1], interpolation=cv2.INTER_LINEAR)
    top, left, code = block
    labels[top : top + 3, left : left + 3] = code
    assert rim_classes(labels, present_codes(labels)) == _plain(labels)


def test_real_masks_have_no_rims(real_data: Path) -> None:
    for path in sorted((real_data / "masks").iterdir()):
        labels = read_mask(path)
        assert rim_classes(labels, present_codes(labels)) == {}, path.name


def test_build_names_the_mask_its_codes_and_their_pixels(
    write_roi: WriteRoi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blended = np.asarray(Image.fromarray(_drawn()).resize((177, 151), Image.Resampling.BILINEAR))
    source = write_roi("a", blended)
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=64))
    counts = {code: int((blended == code).sum()) for code in (2, 3)}
    assert f"masks/a.png: the codes 2 ({counts[2]} px), 3 ({counts[3]} px) occur only as thin rims" in caplog.text
