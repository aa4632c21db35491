"""Write a synthetic data set with names and masks like those of BCSS, to try everything without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prep.sample.flat_tissue import PLAIN, draw_flat, random_flat_tissue
from prep.sample.glands import draw_glands
from prep.sample.textured_tissue import draw_textured
from schemas.classes import BCSS_CLASSES
from schemas.errors import SourceError

# The third is a test institution of the bcss split, so that six ROIs give all three splits.
INSTITUTIONS = ("A1", "A2", "OL", "BH", "AR", "D8", "A7", "E2", "C8", "A8", "AO", "EW")

SampleLook = Literal["plain", "varied", "textured", "glands"]
"""How the tissue looks: always the same; each ROI in its own colors; fibers and cells as in real tissue; or glands."""

_LETTERS: dict[SampleLook, str] = {"plain": "Z", "varied": "N", "textured": "T", "glands": "G"}
"""The letter in the names of the patients, so that two looks have no patient in common."""


def write_sample(
    directory: Path, rois: int = 6, size_px: int = 1536, seed: int = 0, look: SampleLook = "plain"
) -> list[str]:
    """Write `images/*.png` (RGB) and `masks/*.png` (palettized).

    Args:
        directory: The folder to write to; it is created. The same call twice writes the same bytes.
        rois: Number of ROIs.
        size_px: Height of a ROI in pixels; it is an eighth wider than high, since real ROIs are not square.
        seed: Seed of everything that is drawn.
        look: How the tissue looks. Patients of different looks have different names.

    Returns:
        The stems of the files.

    Raises:
        SourceError: The folders contain files of another sample or data set.
    """
    stems = [_stem(number, seed, _LETTERS[look]) for number in range(rois)]
    for name in ("images", "masks"):
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        strangers = sorted(path for path in folder.iterdir() if path.stem not in stems)
        if strangers:
            raise SourceError(strangers[0], "does not belong to this sample", "name an empty folder")
    for number, stem in enumerate(stems):
        generator = np.random.default_rng([seed, number])
        image, labels = _draw(look, size_px, size_px + size_px // 8, generator)
        Image.fromarray(image).save(directory / "images" / f"{stem}.png", compress_level=1)
        _palettized(labels).save(directory / "masks" / f"{stem}.png")
    return stems


def _draw(
    look: SampleLook, height: int, width: int, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the image and the labels of one ROI."""
    if look == "glands":
        return draw_glands(height, width, generator)
    if look == "textured":
        return draw_textured(height, width, generator)
    return draw_flat(height, width, generator, random_flat_tissue(generator) if look == "varied" else PLAIN)


def _palettized(labels: NDArray[np.uint8]) -> Image.Image:
    mask = Image.fromarray(labels, mode="L")
    mask.putpalette([channel for info in BCSS_CLASSES for channel in info.color])
    return mask


def _stem(number: int, seed: int, letter: str) -> str:
    institution = INSTITUTIONS[number % len(INSTITUTIONS)]
    x, y = 10_000 + 1000 * number, 20_000 + 100 * seed
    return f"TCGA-{institution}-{letter}{number:03d}-DX1_xmin{x}_ymin{y}_MPP-0.2500"
