"""Sequences: a pixel value is one object in all frames, from folders or a table to the store and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from prep.verify import verify_store
from schemas.store.sequence import SequenceFrame
from schemas.store.store import Store, open_store

HEIGHT, WIDTH = 80, 104
Masks = dict[str, dict[int, NDArray[np.uint8] | None]]
"""The masks of each sequence by frame number; None for a frame without one."""


def moving_mask(frame: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw object 1 that moves to the right, and object 7 that is hidden in the second frame; 255 on top."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[20 + seed : 50, 8 + 6 * frame : 40 + 6 * frame] = 1
    if frame != 1:
        ids[56:72, 60:90] = 7
    ids[:4] = 255
    return ids


def some_masks() -> Masks:
    """Masks of four sequences; the second frame of `cell` has none."""
    masks: Masks = {name: {5 * n: moving_mask(n, seed) for n in range(3)} for seed, name in enumerate("abcd")}
    masks["cell"] = {number: moving_mask(number) if number != 1 else None for number in range(4)}
    return masks


def write_sequences(source: Path, masks: Masks) -> Path:
    """Write `images/<sequence>/<frame>.jpg` and palettized `masks/<sequence>/<frame>.png`."""
    generator = np.random.default_rng(0)
    for name, frames in masks.items():
        for folder in ("images", "masks"):
            (source / folder / name).mkdir(parents=True, exist_ok=True)
        for number, ids in frames.items():
            height, width = (HEIGHT, WIDTH) if ids is None else ids.shape
            image = Image.fromarray(generator.integers(0, 255, (height, width, 3), np.uint8))
            image.save(source / "images" / name / f"{number:05d}.jpg")
            if ids is not None:
                mask = Image.fromarray(ids)
                mask.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7 * value % 256)])
                mask.save(source / "masks" / name / f"{number:05d}.png")
    return source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequences(tmp_path_factory.mktemp("sequences"), some_masks())


@pytest.fixture(scope="module")
def tiled(source: Path) -> Store:
    """The sequences in tiles of 64 px: four windows a frame."""
    build_store(source, source / "tiled.zarr", BuildConfig(size_px=64, sequences=True))
    return open_store(source / "tiled.zarr")


def test_every_window_shows_the_pixels_and_objects_of_its_frame(tiled: Store) -> None:
    masks, seen = some_masks(), 0
    assert verify_store(tiled) == []
    assert tiled.manifest.schema_version == 2
    assert tiled.sequences == ("a", "b", "c", "cell", "d")
    for index, name in enumerate(tiled.sequences):
        frames = tiled.sequence(name)
        assert [frame.number for frame in frames] == sorted(masks[name])
        for frame in frames:
            ids = masks[name][frame.number]
            assert frame.labelled == (ids is not None)
            records = [tiled[tile] for tile in frame.tiles]
            assert [record.origin_xy for record in records] == [(0, 0), (40, 0), (0, 16), (40, 16)]
            for record in records:
                tile, (x, y) = tiled.tile(record.index), record.origin_xy
                assert (tile.sequence, tile.frame_number) == (index, frame.number)
                assert record.patient == name
                window = np.zeros((64, 64), np.uint8) if ids is None else ids[y : y + 64, x : x + 64]
                np.testing.assert_array_equal(record.labels, window)
                np.testing.assert_array_equal(record.ignore, window == 255 if ids is not None else True)
                assert list(tile.tracks.values()) == sorted({1, 7} & set(window.ravel().tolist()))
                for track, segment in zip(tile.tracks.values(), record.segments, strict=True):
                    np.testing.assert_array_equal(segment, window == track)
                seen += 1
    assert seen == len(tiled) == 64


def test_resized_frames_are_one_tile_each(source: Path, tmp_path: Path) -> None:
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=64, sequences=True, layout="resize"))
    store = open_store(tmp_path / "s.zarr")
    assert verify_store(store) == []
    assert store.sequence("cell") == tuple(SequenceFrame(n, (9 + n,), n != 1) for n in range(4))
    assert [info.name for info in store.manifest.classes] == ["object"]
