"""Masks whose colors are the classes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prep.cli import main
from prep.source.colors import read_labels
from schemas.errors import SourceError
from schemas.store.store import open_store

COLORS = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 7, (0, 0, 255): 300}


def _save(path: Path, codes: np.ndarray, mode: str = "RGB") -> None:
    by_code = {code: color for color, code in COLORS.items()}
    rgb = np.array([by_code.get(code, (1, 2, 3)) for code in range(301)], np.uint8)[codes]
    Image.fromarray(rgb).convert(mode).save(path)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["RGB", "RGBA"]), st.sampled_from(["png", "tif"]))
def test_codes_come_back_from_colors(tmp_path_factory: pytest.TempPathFactory, seed: int, mode: str, kind: str) -> None:
    path = tmp_path_factory.mktemp("colors") / f"m.{kind}"
    codes = np.random.default_rng(seed).choice([0, 1, 7, 300], (9, 13))
    _save(path, codes, mode)
    found, unknown = read_labels(path, COLORS)
    np.testing.assert_array_equal(found, codes)
    assert unknown == 0


def test_unknown_color_is_named_with_place_count_and_nearest(tmp_path: Path) -> None:
    pixels = np.zeros((8, 9, 3), np.uint8)
    pixels[2:5, 3:7] = (250, 10, 0)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(SourceError) as caught:
        read_labels(tmp_path / "m.png", COLORS)
    assert "has the unknown color #fa0a00 at x 3, y 2, in 12 px" in str(caught.value)
    assert "the nearest there is #ff0000 (code 1)" in str(caught.value)
    found, unknown = read_labels(tmp_path / "m.png", COLORS, nearest=True)
    assert unknown == 12
    np.testing.assert_array_equal(found == 1, (pixels[..., 0] == 250))


def test_blended_edges_are_refused_as_such_or_taken_and_counted(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:] = (255, 0, 0)
    pixels[:, 20] = np.linspace((10, 0, 0), (250, 0, 0), 40)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(SourceError, match=r"has 40 px of 40 blended colors along edges, as anti-aliasing makes them"):
        read_labels(tmp_path / "m.png", COLORS)
    found, unknown = read_labels(tmp_path / "m.png", COLORS, nearest=True)
    assert unknown == 40
    np.testing.assert_array_equal(found[:, 20], pixels[:, 20, 0] > 127)


def test_transparent_pixels_and_jpeg_are_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "m.png")
    with pytest.raises(SourceError, match="has transparent pixels"):
        read_labels(tmp_path / "m.png", COLORS)
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "j.png", format="JPEG")
    with pytest.raises(SourceError, match="is a JPEG"):
        read_labels(tmp_path / "j.png", COLORS)


def test_store_of_color_masks_is_that_of_their_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.zeros((64, 64), np.uint8)
    codes[10:30, 5:50], codes[40:60, 20:40] = 1, 7
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    table = "code\tname\tcolor\n0\tbackground\t#000000\n1\tgland\t#ff0000\n7\tvessel\t#00ff00\n"
    (tmp_path / "colors.tsv").write_text(table)
    stores = []
    kinds = (("rgb", "--colors"), ("palette", "--colors"), ("gray", "--class-map"), ("auto", "--class-map"))
    for name, flag in kinds:
        source = tmp_path / name
        for folder in ("images", "masks"):
            (source / folder).mkdir(parents=True)
        image.save(source / "images" / "a.png")
        if name == "gray":
            Image.fromarray(codes).save(source / "masks" / "a.png")
        elif name == "palette":
            # The places in this palette are not the codes, but its colors are those of the codes.
            _save(source / "masks" / "rgb.png", codes)
            Image.open(source / "masks" / "rgb.png").quantize(8).save(source / "masks" / "a.png")
            (source / "masks" / "rgb.png").unlink()
        else:
            _save(source / "masks" / "a.png", codes)
        out = str(tmp_path / f"{name}.zarr")
        arguments = ["build", str(source), "--out", out, "--size", "64", "--workers", "1"]
        monkeypatch.setattr(sys, "argv", ["bcss-prep", *arguments, flag, str(tmp_path / "colors.tsv")])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        stores.append(open_store(out))
    for store in stores:
        assert [info.name for info in store.manifest.classes] == ["gland", "vessel"]
        np.testing.assert_array_equal(store[0].labels, codes)
        np.testing.assert_array_equal(store[0].segments, stores[0][0].segments)
