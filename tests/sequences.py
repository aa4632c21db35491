"""Write small sequences of frames with palettized masks, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
        height, width = next(ids.shape for ids in frames.values() if ids is not None)
        for number, ids in frames.items():
            image = Image.fromarray(generator.integers(0, 255, (height, width, 3), np.uint8))
            image.save(source / "images" / name / f"{number:05d}.jpg")
            if ids is not None:
                mask = Image.fromarray(ids)
                mask.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7 * value % 256)])
                mask.save(source / "masks" / name / f"{number:05d}.png")
    return source
