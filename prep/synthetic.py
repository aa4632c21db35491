"""Write a synthetic data set with names and masks like those of BCSS, to try everything without a download.

The tissue is artificial: smooth regions of the five default classes, each with its own ground color and density of
nuclei. The corners are outside the annotated region (code 0), and one patch is excluded (code 7).
Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.classes import BCSS_CLASSES
from schemas.errors import SourceError

# The third is a test institution of the bcss split, so that six ROIs give all three splits.
INSTITUTIONS = ("A1", "A2", "OL", "BH", "AR", "D8", "A7", "E2", "C8", "A8", "AO", "EW")

OUTSIDE, TUMOR, STROMA, LYMPHOCYTES, NECROSIS, EXCLUDE, VESSEL = 0, 1, 2, 3, 4, 7, 18


SampleLook = Literal["plain", "varied", "glands"]
"""How the tissue looks: always the same, each ROI in its own way, or glands with a pale center in pink stroma."""

_LETTERS: dict[SampleLook, str] = {"plain": "Z", "varied": "N", "glands": "G"}
"""The letter in the names of the patients, so that two looks have no patient in common."""


@dataclass(frozen=True)
class Look:
    """How a class is painted.

    Attributes:
        ground: Color of the ground, RGB.
        nuclei: Number of nuclei in 100 x 100 px.
        radius_px: Radius of a nucleus in pixels.
        nucleus: Color of a nucleus, RGB.
    """

    ground: tuple[int, int, int]
    nuclei: float
    radius_px: int
    nucleus: tuple[int, int, int]


@dataclass(frozen=True)
class _Tissue:
    """How the tissue of a ROI looks.

    Attributes:
        looks: How each class is painted, by its code.
        head_starts: Each pixel gets the class whose smooth random field, plus its head start, is the highest there.
        region_px: Distance in pixels over which the random fields change.
    """

    looks: dict[int, Look]
    head_starts: dict[int, float]
    region_px: int


LOOKS = {
    OUTSIDE: Look((225, 195, 215), 0.6, 7, (140, 90, 160)),
    TUMOR: Look((196, 140, 190), 7.0, 9, (98, 58, 140)),
    STROMA: Look((232, 170, 200), 1.0, 6, (120, 70, 150)),
    LYMPHOCYTES: Look((205, 165, 205), 16.0, 5, (62, 38, 110)),
    NECROSIS: Look((226, 150, 165), 0.3, 5, (150, 80, 120)),
    EXCLUDE: Look((242, 240, 243), 0.0, 1, (0, 0, 0)),
    VESSEL: Look((205, 70, 90), 0.4, 6, (120, 40, 80)),
}

_PLAIN = _Tissue(LOOKS, {TUMOR: 0.25, STROMA: 0.3, LYMPHOCYTES: -0.15, NECROSIS: -0.2}, 160)


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
        width = size_px + size_px // 8
        if look == "glands":
            image, labels = _draw_glands(size_px, width, generator)
        else:
            tissue = _draw_tissue(generator) if look == "varied" else _PLAIN
            image, labels = draw_roi(size_px, width, generator, tissue)
        Image.fromarray(image).save(directory / "images" / f"{stem}.png", compress_level=1)
        _palettized(labels).save(directory / "masks" / f"{stem}.png")
    return stems


def draw_roi(
    height: int, width: int, generator: np.random.Generator, tissue: _Tissue = _PLAIN
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one ROI.

    Args:
        height: H in pixels.
        width: W in pixels.
        generator: Draws everything.
        tissue: How the tissue looks.

    Returns:
        Image uint8 (H, W, 3), RGB, and labels uint8 (H, W).
    """
    looks = tissue.looks
    labels = _draw_labels(height, width, generator, tissue)
    image = np.array([looks.get(code, looks[OUTSIDE]).ground for code in range(256)], np.uint8)[labels]
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8)
    for code, look in looks.items():
        draw_nuclei(image, labels == code, look, generator)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 1), np.uint8)
    shade = smooth_field(height, width, 300, generator)[..., None] * 8
    noise = generator.normal(0, 5, image.shape).astype(np.float32)
    return np.clip(image + shade + noise, 0, 255).astype(np.uint8), labels


def _draw_tissue(generator: np.random.Generator) -> _Tissue:
    """Draw how the tissue of a ROI looks: its stain, and the nuclei and region sizes of its classes."""
    gain, offset = generator.uniform(0.75, 1.1, 3), generator.uniform(-20, 20, 3)

    def stained(color: tuple[int, int, int]) -> tuple[int, int, int]:
        red, green, blue = np.clip(np.array(color) * gain + offset + generator.uniform(-22, 22, 3), 0, 255).astype(int)
        return int(red), int(green), int(blue)

    looks = {
        code: replace(
            look,
            ground=stained(look.ground),
            nuclei=look.nuclei * float(generator.uniform(0.4, 1.6)),
            radius_px=max(round(look.radius_px * float(generator.uniform(0.6, 1.5))), 1),
            nucleus=stained(look.nucleus),
        )
        for code, look in LOOKS.items()
    }
    head_starts = {code: start + float(generator.normal(0, 0.25)) for code, start in _PLAIN.head_starts.items()}
    return _Tissue(looks, head_starts, int(generator.integers(60, 220)))


def _draw_labels(height: int, width: int, generator: np.random.Generator, tissue: _Tissue) -> NDArray[np.uint8]:
    codes = np.array(list(tissue.head_starts), np.uint8)
    fields = [smooth_field(height, width, tissue.region_px, generator) + start for start in tissue.head_starts.values()]
    labels = codes[np.argmax(fields, axis=0)]
    for code, count, share in ((VESSEL, 4, 30), (EXCLUDE, 1, 20)):
        for _ in range(count):
            center = (int(generator.integers(0, width)), int(generator.integers(0, height)))
            axes = tuple(int(a) for a in generator.integers(height // share // 2 + 2, height // share + 4, 2))
            cv2.ellipse(labels, center, axes, float(generator.uniform(0, 180)), 0, 360, code, -1)
    # ROIs of BCSS are rotated against the axes of the slide, so a triangle at two corners lies outside.
    cut = height // 10
    for x, y, dx, dy in ((0, 0, 2, 1), (width - 1, height - 1, -2, -1)):
        corner = np.array([(x, y), (x + dx * cut, y), (x, y + dy * cut)], np.int32)
        cv2.fillPoly(labels, [corner], OUTSIDE)
    return labels


def _draw_glands(
    height: int, width: int, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw glands: a rim of nuclei around a pale lumen, and both belong to the gland; holes alike belong to none."""
    labels = np.full((height, width), STROMA, np.uint8)
    image = np.full((height, width, 3), LOOKS[STROMA].ground, np.uint8)
    lumen = np.zeros((height, width), np.uint8)
    taken = np.zeros((height, width), np.uint8)
    for number in range(height * width // 9_000):
        outline = _draw_blob(height, width, generator)
        own = _filled(labels.shape, outline)
        if taken[cv2.dilate(own, np.ones((9, 9), np.uint8)) > 0].any():
            continue
        taken |= own
        middle = outline.mean(0)
        inner = _filled(labels.shape, middle + (outline - middle) * generator.uniform(0.4, 0.65))
        # Every fourth one is a hole in the stroma, as pale as a lumen, and is not a gland.
        if number % 4:
            labels[own > 0] = TUMOR
            image[own > 0] = LOOKS[TUMOR].ground
        lumen |= inner
    image[lumen > 0] = LOOKS[EXCLUDE].ground
    draw_nuclei(image, (labels == TUMOR) & (lumen == 0), replace(LOOKS[TUMOR], nuclei=22.0, radius_px=6), generator)
    draw_nuclei(image, (labels == STROMA) & (lumen == 0), replace(LOOKS[STROMA], nuclei=2.0), generator)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 1), np.uint8)
    noise = generator.normal(0, 5, image.shape).astype(np.float32)
    return np.clip(image + noise, 0, 255).astype(np.uint8), labels


def _filled(shape: tuple[int, ...], outline: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Fill an outline: uint8 of this shape, 1 inside."""
    mask = np.zeros(shape[:2], np.uint8)
    corners = np.asarray(np.round(outline), np.int32)
    cv2.fillPoly(mask, [corners], 1)
    return mask


def _draw_blob(height: int, width: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw the outline of a lobed, stretched blob: float64 (60, 2), x and y."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    phases = generator.uniform(0, 2 * np.pi, 3)
    lobes = 0.2 * np.cos(2 * angles + phases[0]) + 0.15 * np.cos(3 * angles + phases[1])
    radius_px = generator.uniform(18, 52) * (1 + lobes)
    points = np.stack([np.cos(angles) * generator.uniform(1, 1.8), np.sin(angles)], 1) * radius_px[:, None]
    turn = np.array([[np.cos(phases[2]), -np.sin(phases[2])], [np.sin(phases[2]), np.cos(phases[2])]])
    return points @ turn + generator.uniform((0, 0), (width, height))


def smooth_field(height: int, width: int, grain_px: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of unit variance, float32 (H, W), that changes over about `grain_px` pixels."""
    coarse = generator.normal(size=(height // grain_px + 4, width // grain_px + 4)).astype(np.float32)
    size = (coarse.shape[1] * grain_px, coarse.shape[0] * grain_px)
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.float32)[
        grain_px : grain_px + height, grain_px : grain_px + width
    ]


def draw_nuclei(
    image: NDArray[np.uint8], region: NDArray[np.bool_], look: Look, generator: np.random.Generator
) -> None:
    """Paint nuclei into an image, at random pixels of a region, as many as its look has in that area."""
    rows, columns = np.nonzero(region)
    count = int(len(rows) * look.nuclei / 10_000)
    if not count:
        return
    for place in generator.integers(0, len(rows), count):
        center = (int(columns[place]), int(rows[place]))
        radii = (look.radius_px, max(look.radius_px * 2 // 3, 2))
        cv2.ellipse(image, center, radii, float(generator.uniform(0, 180)), 0, 360, look.nucleus, -1)


def _palettized(labels: NDArray[np.uint8]) -> Image.Image:
    mask = Image.fromarray(labels, mode="L")
    mask.putpalette([channel for info in BCSS_CLASSES for channel in info.color])
    return mask


def _stem(number: int, seed: int, letter: str) -> str:
    institution = INSTITUTIONS[number % len(INSTITUTIONS)]
    x, y = 10_000 + 1000 * number, 20_000 + 100 * seed
    return f"TCGA-{institution}-{letter}{number:03d}-DX1_xmin{x}_ymin{y}_MPP-0.2500"
