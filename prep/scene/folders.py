"""Write scenes as folders: `images/<sequence>/<frame>.jpg`, and `masks/<sequence>/<frame>.png` with a palette."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from prep.scene.scene import draw_scene
from schemas.classes import describe_class
from schemas.errors import SourceError

SIZE_PX = 480
"""Height of a frame unless given, as in DAVIS."""

_QUALITY = 92


def write_scenes(directory: Path, frames: int, sequences: int = 6, size_px: int = SIZE_PX, seed: int = 0) -> list[str]:
    """Write a synthetic data set of sequences.

    Args:
        directory: The folder to write to; it is created. The same call twice writes the same bytes.
        frames: T, the number of frames of each sequence.
        sequences: Number of sequences.
        size_px: Height of a frame; it is an eighth wider than high.
        seed: Seed of everything that is drawn.

    Returns:
        The names of the sequences.

    Raises:
        SourceError: The folders contain files of another sample or data set.
    """
    names = [f"scene-{seed}-{number:03d}" for number in range(sequences)]
    files = {f"{frame:05d}" for frame in range(frames)}
    for folder in (directory / "images", directory / "masks"):
        found = sorted(folder.glob("*/*")) + [path for path in sorted(folder.glob("*")) if not path.is_dir()]
        strangers = [path for path in found if path.parent.name not in names or path.stem not in files]
        if strangers:
            raise SourceError(strangers[0], "does not belong to this sample", "name an empty folder")
    palette = [0, 0, 0, *(channel for value in range(1, 256) for channel in describe_class(value).color)]
    for number, name in enumerate(names):
        for folder in ("images", "masks"):
            (directory / folder / name).mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng([seed, number])
        scene = draw_scene(size_px, size_px + size_px // 8, frames, generator)
        for frame, (image, ids) in enumerate(scene):
            Image.fromarray(image).save(directory / "images" / name / f"{frame:05d}.jpg", quality=_QUALITY)
            mask = Image.fromarray(ids)
            mask.putpalette(palette)
            mask.save(directory / "masks" / name / f"{frame:05d}.png")
    return names
