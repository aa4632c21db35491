"""Masks that were turned or resized with blending are told from masks that were drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from prep.derive.rims import rim_classes
from prep.derive.segments import present_codes
from schemas.picture.decode import read_mask
from tests.conftest import WriteRoi


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
