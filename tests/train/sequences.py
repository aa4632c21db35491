"""Draw small sequences for tests: two colored shapes drift over a plain background, and one of them hides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from schemas.store.store import Store, open_store

SIDE_PX = 128
FRAMES = 6
COLORS = {0: (200, 190, 200), 1: (90, 40, 140), 7: (210, 80, 60)}
"""The color of each mask value. JPEG is not used, so a pixel's color says which object it belongs to."""


def drifting_mask(frame: int, seed: int) -> NDArray[np.uint8]:
    """Draw object 1, which drifts to the right, and object 7, which drifts down and is hidden in frame 2."""
    ids = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    ids[((x - 26 - 9 * frame - 3 * seed) / 20) ** 2 + ((y - 36) / 14) ** 2 < 1] = 1
    if frame != 2:
        ids[68 + 4 * frame : 88 + 4 * frame, 60 + 5 * seed : 100] = 7
    return ids


def colored(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image of a mask, uint8 (H, W, 3)."""
    table = np.zeros((256, 3), np.uint8)
    for value, color in COLORS.items():
        table[value] = color
    return table[ids]


def write_drifting(source: Path, sequences: int = 3, frames: int = FRAMES, *, unlabeled: int | None = 4) -> Path:
    """Write `images/<sequence>/<frame>.png` and `masks/<sequence>/<frame>.png`; one frame of the first has no mask."""
    for seed in range(sequences):
        for frame in range(frames):
            ids = drifting_mask(frame, seed)
            for folder, content in (("images", colored(ids)), ("masks", ids)):
                if folder == "masks" and seed == 0 and frame == unlabeled:
                    continue
                path = source / folder / f"s{seed}" / f"{frame:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
    return source


def drifting_store(folder: Path, sequences: int = 3, frames: int = FRAMES, *, unlabeled: int | None = 4) -> Store:
    """Build a store of such sequences, one tile per frame."""
    source = write_drifting(folder / "source", sequences, frames, unlabeled=unlabeled)
    build_store(source, folder / "frames.zarr", BuildConfig(size_px=SIDE_PX, sequences=True, layout="resize"))
    return open_store(folder / "frames.zarr")
