"""Synthetic sequences: objects keep their numbers while they move, hide and come back."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prep.cli import main
from prep.scene.folders import write_scenes
from prep.scene.moving_object import EXTENT, draw_object
from prep.scene.scene import draw_scene
from schemas.errors import SourceError
from tests.folders import bytes_of


def test_first_object_hides_and_comes_back_and_a_copy_of_the_first_mask_soon_fails() -> None:
    for seed in range(4):
        frames = list(draw_scene(160, 180, 8, np.random.default_rng(seed)))
        ids = np.stack([ids for _, ids in frames])
        areas = (ids == 1).sum(axis=(1, 2))
        assert areas[4] == 0
        assert (areas[[0, 1, 6, 7]] > 200).all()
        assert 3 <= ids.max() <= 5
        for number in range(1, int(ids.max()) + 1):
            first, last = ids[0] == number, ids[-1] == number
            assert (first & last).sum() < 0.6 * (first | last).sum()
        images = np.stack([image for image, _ in frames]).astype(int)
        # The mask lies on what the picture shows: objects have other colors than the stroma.
        assert abs(images[ids > 0].mean(axis=0) - images[ids == 0].mean(axis=0)).max() > 20


@settings(max_examples=30)
@given(st.integers(0, 999), st.integers(0, 500), st.floats(4, 30))
def test_objects_stay_in_the_frame_and_keep_their_nuclei_inside(seed: int, frame: int, radius_px: float) -> None:
    generator = np.random.default_rng(seed)
    size_xy = np.array([180.0, 160.0])
    start_xy = generator.uniform(radius_px, size_xy - radius_px)
    item = draw_object(radius_px, start_xy, size_xy, generator)
    np.testing.assert_allclose(item.center(0), start_xy)
    center = item.center(frame)
    assert (center >= radius_px - 1e-6).all()
    assert (center <= size_xy - radius_px + 1e-6).all()
    assert np.hypot(*(item.center(frame + 1) - center)) <= np.hypot(*item.step_xy) + 1e-6
    assert np.hypot(*(item.outline(frame) - center).T).max() <= radius_px * EXTENT + 1e-6
    change = item.outline(frame + 1) - item.center(frame + 1) - (item.outline(frame) - center)
    assert np.hypot(*change.T).max() > 0.05 * radius_px
    outline = item.outline(frame).astype(np.float32)
    for nucleus in item.nuclei_xy(frame).tolist():
        assert cv2.pointPolygonTest(outline, nucleus, measureDist=False) > 0


def test_the_command_writes_the_folders_of_davis_and_the_same_bytes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "bcss-prep",
        "sample",
        str(tmp_path / "a"),
        "--frames",
        "3",
        "--rois",
        "2",
        "--size",
        "64",
        "--seed",
        "5",
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "2 sequences of 3 frames" in capsys.readouterr().out
    names = write_scenes(tmp_path / "b", frames=3, sequences=2, size_px=64, seed=5)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert sorted(bytes_of(tmp_path / "b")) == sorted(
        f"{kind}/{name}/{number:05d}.{ending}"
        for kind, ending in (("images", "jpg"), ("masks", "png"))
        for name in names
        for number in range(3)
    )
    with Image.open(tmp_path / "b" / "masks" / names[0] / "00000.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (72, 64)
        assert (mask.getpalette() or [])[:6] == [0, 0, 0, 228, 26, 28]
    with pytest.raises(SourceError, match=r"00002\.jpg: does not belong to this sample"):
        write_scenes(tmp_path / "b", frames=2, sequences=2, size_px=64, seed=5)
    other = write_scenes(tmp_path / "c", frames=3, sequences=2, size_px=64, seed=6)
    assert not set(other) & set(names)
