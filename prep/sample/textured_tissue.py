"""Draw ROIs whose classes differ by texture, as in real tissue: fibers, crowded nuclei, grains and gaps.

Each pixel gets an amount of hematoxylin and of eosin; its color follows from them by the law of Beer and Lambert. The
stains and the amounts differ from ROI to ROI, so a color alone does not tell a class. The labels are smoother than the
tissue, as the outlines of pathologists are.
Arrays are H, W; coordinates are x, y. Nuclei are half as large as the 0.25 micrometers per pixel of the
file names would make them, so that a tile of 256 px shows as many cells as one of 512 px of a real ROI.
Source of the stains: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.sample.field import fibers, smooth_field, speckles
from prep.sample.tissue_class import EXCLUDE, LYMPHOCYTES, NECROSIS, OUTSIDE, STROMA, TUMOR, VESSEL, cut_corners

HEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.12, 0.95, 0.25)
"""Optical density of each stain in red, green and blue."""

HEAD_STARTS = {TUMOR: 0.3, STROMA: 0.35, LYMPHOCYTES: -0.2, NECROSIS: -0.3}
"""Each pixel gets the class whose random field, plus its head start, is the highest there."""

Range = tuple[float, float]
"""Lowest and highest value."""


@dataclass(frozen=True)
class Nuclei:
    """Ranges from which each ROI draws the nuclei of a class.

    Attributes:
        density: Number in 100 x 100 px.
        radius_px: Mean radius in pixels.
        elongation: Length divided by width.
        hematoxylin: Optical density.
        pale: Density of the inner part as a share of the rim's.
        along_fibers: Whether nuclei point along the fibers.
    """

    density: Range
    radius_px: Range
    elongation: Range
    hematoxylin: Range = (0.6, 1.5)
    pale: Range = (1.0, 1.0)
    along_fibers: bool = False


@dataclass(frozen=True)
class Texture:
    """Ranges from which each ROI draws how a class looks.

    Attributes:
        eosin: Optical density of the ground.
        hematoxylin: Optical density of the ground.
        fibers: Contrast of fibers.
        cells: Contrast of speckles as large as cells.
        grains: Contrast of small speckles.
        nuclei: The nuclei; None draws none.
    """

    eosin: Range
    hematoxylin: Range
    fibers: Range = (0.0, 0.0)
    cells: Range = (0.0, 0.0)
    grains: Range = (0.0, 0.05)
    nuclei: Nuclei | None = None


TEXTURES = {
    # Never seen, because the corners are cut from the labels alone. Without it, the same seeds draw other tissue.
    OUTSIDE: Texture((0.3, 0.3), (0.05, 0.05), fibers=(0.2, 0.2), nuclei=Nuclei((2, 2), (6, 6), (2, 2))),
    TUMOR: Texture(
        (0.2, 0.5), (0.12, 0.4), cells=(0.05, 0.2), nuclei=Nuclei((8, 18), (7, 11), (1.1, 1.5), pale=(0.55, 1.0))
    ),
    STROMA: Texture(
        (0.3, 0.7), (0.02, 0.2), fibers=(0.15, 0.4), nuclei=Nuclei((1.5, 5), (5, 7.5), (2, 4), along_fibers=True)
    ),
    LYMPHOCYTES: Texture(
        (0.15, 0.4), (0.1, 0.35), cells=(0.05, 0.2), nuclei=Nuclei((25, 50), (4.5, 6), (1.1, 1.1), (0.9, 2.0))
    ),
    NECROSIS: Texture(
        (0.4, 0.8),
        (0.03, 0.2),
        cells=(0.0, 0.15),
        grains=(0.1, 0.3),
        nuclei=Nuclei((0.3, 3), (3, 6), (1.3, 1.3), (0.4, 1.4)),
    ),
    EXCLUDE: Texture((0.0, 0.05), (0.0, 0.05)),
    VESSEL: Texture((0.6, 1.0), (0.02, 0.15), grains=(0.05, 0.3), nuclei=Nuclei((0.2, 1.5), (5, 5), (1.3, 1.3))),
}

LOOSE_CELLS = Nuclei((0.2, 2.0), (4.5, 6), (1.1, 1.1), (0.9, 1.7))
"""Single lymphocytes, which lie in all classes."""


@dataclass(frozen=True)
class _Canvas:
    """A ROI while it is drawn.

    Attributes:
        tissue: uint8 (H, W), the class of each pixel.
        stains: float32 (H, W, 2), the amounts of hematoxylin and eosin.
        angle: float32 (H, W), the direction of the fibers in radians.
        fibers: float32 (H, W), of unit variance.
        generator: Draws everything.
    """

    tissue: NDArray[np.uint8]
    stains: NDArray[np.float32]
    angle: NDArray[np.float32]
    fibers: NDArray[np.float32]
    generator: np.random.Generator

    def draw(self, bounds: Range) -> float:
        """Draw a number from a range."""
        return float(self.generator.uniform(*bounds))


def draw_textured(
    height: int, width: int, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one ROI.

    Args:
        height: H in pixels.
        width: W in pixels.
        generator: Draws everything.

    Returns:
        Image uint8 (H, W, 3), RGB, and labels uint8 (H, W).
    """
    labels, tissue = _draw_classes(height, width, generator)
    return paint_textured(tissue, generator), labels


def paint_textured(tissue: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Paint tissue whose classes are known.

    Args:
        tissue: uint8 (H, W), for each pixel a class of `TEXTURES`.
        generator: Draws everything.

    Returns:
        Image uint8 (H, W, 3), RGB.
    """
    height, width = tissue.shape
    turns = smooth_field(height, width, int(generator.integers(250, 500)), generator)
    angle = np.asarray(np.pi * (generator.uniform(0.3, 0.8) * turns + generator.uniform(0, 1)), np.float32)
    strands = fibers(angle, int(generator.integers(2, 5)), int(generator.integers(6, 16)), generator)
    canvas = _Canvas(tissue, np.zeros((height, width, 2), np.float32), angle, strands, generator)
    _paint_ground(canvas)
    _paint_nuclei(canvas)
    _open_gaps(canvas)
    return _through_jpeg(_colored(canvas), generator)


def _draw_classes(
    height: int, width: int, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the labels, and the classes of the tissue below them, which has more detail; uint8 (H, W) each."""
    region_px, detail_px = int(generator.integers(70, 280)), int(generator.integers(18, 50))
    detail, septum = generator.uniform(0.1, 0.5), generator.uniform(0, 0.12)
    coarse = [
        smooth_field(height, width, region_px, generator)
        + 0.35 * smooth_field(height, width, max(region_px // 3, 20), generator)
        + (start + generator.normal(0, 0.3))
        for start in HEAD_STARTS.values()
    ]
    fine = [field + detail * smooth_field(height, width, detail_px, generator) for field in coarse]
    codes = np.array(list(HEAD_STARTS), np.uint8)
    labels, tissue = codes[np.argmax(coarse, axis=0)], codes[np.argmax(fine, axis=0)]
    part_tumor(tissue, 2 * detail_px, septum, generator)
    for code, most, share in ((VESSEL, 5, 25), (EXCLUDE, 2, 20)):
        for _ in range(int(generator.integers(0, most + 1))):
            center = (int(generator.integers(0, width)), int(generator.integers(0, height)))
            axes = tuple(int(a) for a in generator.integers(height // share // 3 + 2, height // share + 4, 2))
            turn = float(generator.uniform(0, 180))
            for mask in (labels, tissue):
                cv2.ellipse(mask, center, axes, turn, 0, 360, code, -1)
    cut_corners(labels)
    return labels, tissue


def part_tumor(tissue: NDArray[np.uint8], nest_px: int, septum: float, generator: np.random.Generator) -> None:
    """Part the tumor into nests by thin strands of stroma, which nobody annotates.

    Args:
        tissue: uint8 (H, W), the class of each pixel; it is changed.
        nest_px: Size of a nest in pixels.
        septum: Width of the strands, as the height of a smooth field around 0 that becomes stroma; 0 parts nothing.
        generator: Draws the field.
    """
    height, width = tissue.shape
    between = np.abs(smooth_field(height, width, nest_px, generator)) < septum
    tissue[between & (tissue == TUMOR)] = STROMA


def _paint_ground(canvas: _Canvas) -> None:
    """Paint what lies between the nuclei."""
    height, width = canvas.tissue.shape
    generator = canvas.generator
    cells = speckles(height, width, int(generator.integers(6, 14)), generator)
    grains = speckles(height, width, int(generator.integers(2, 5)), generator)
    for code, texture in TEXTURES.items():
        parts = ((canvas.fibers, texture.fibers), (cells, texture.cells), (grains, texture.grains))
        contrasts = [canvas.draw(contrast) for _, contrast in parts]
        eosin, hematoxylin = canvas.draw(texture.eosin), canvas.draw(texture.hematoxylin)
        own = canvas.tissue == code
        relief = sum(field[own] * contrast for (field, _), contrast in zip(parts, contrasts, strict=True))
        canvas.stains[own, 0] = hematoxylin * np.clip(1 + 0.7 * relief, 0.2, 2.0)
        canvas.stains[own, 1] = eosin * np.clip(1 + relief, 0.1, 2.2)
    canvas.stains[:] = cv2.GaussianBlur(canvas.stains, (0, 0), 1.5)


def _paint_nuclei(canvas: _Canvas) -> None:
    """Paint the nuclei of each class, then single lymphocytes, and blur them."""
    generator = canvas.generator
    hematoxylin = np.ascontiguousarray(canvas.stains[..., 0])
    for code, texture in TEXTURES.items():
        if texture.nuclei:
            _scatter(hematoxylin, canvas.tissue == code, texture.nuclei, canvas)
    _scatter(hematoxylin, np.isin(canvas.tissue, (TUMOR, STROMA, NECROSIS)), LOOSE_CELLS, canvas)
    height, width = canvas.tissue.shape
    hematoxylin *= 1 + 0.12 * speckles(height, width, 3, generator)
    canvas.stains[..., 0] = cv2.GaussianBlur(hematoxylin, (0, 0), float(generator.uniform(0.8, 1.4)))


def _scatter(hematoxylin: NDArray[np.float32], region: NDArray[np.bool_], nuclei: Nuclei, canvas: _Canvas) -> None:
    """Add nuclei to float32 (H, W): one in each square of a grid, so that they crowd without lying in heaps."""
    generator, (height, width) = canvas.generator, region.shape
    step = 100 / canvas.draw(nuclei.density) ** 0.5
    down, across = np.arange(0.0, height, step), np.arange(0.0, width, step)
    rows = _jittered(np.repeat(down, len(across)), step, height, generator)
    columns = _jittered(np.tile(across, len(down)), step, width, generator)
    inside = region[rows, columns]
    rows, columns = rows[inside], columns[inside]
    count = len(rows)
    radius = canvas.draw(nuclei.radius_px) * np.exp(generator.normal(0, 0.22, count))
    stretch = np.sqrt(canvas.draw(nuclei.elongation) * np.exp(generator.normal(0, 0.15, count)))
    density = canvas.draw(nuclei.hematoxylin) * np.exp(generator.normal(0, 0.2, count))
    pale = canvas.draw(nuclei.pale)
    turns = generator.uniform(0, np.pi, count)
    if nuclei.along_fibers:
        turns = canvas.angle[rows, columns] + generator.normal(0, 0.25, count)
    half_axes = np.maximum(np.stack([radius * stretch, radius / stretch], 1).astype(int), 1).tolist()
    degrees = np.degrees(turns)
    for n, (a, b) in enumerate(half_axes):
        center, turn, amount = (int(columns[n]), int(rows[n])), float(degrees[n]), float(density[n])
        cv2.ellipse(hematoxylin, center, (a, b), turn, 0, 360, amount, -1)
        if pale < 1 and b > 3:
            cv2.ellipse(hematoxylin, center, (a - 2, b - 2), turn, 0, 360, amount * pale, -1)


def _jittered(places: NDArray[np.float64], step: float, side: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Move places along an axis by up to half a step, and keep them in the image."""
    moved = places + step * generator.uniform(-0.5, 0.5, len(places))
    return np.clip(moved, 0, side - 1).astype(np.int64)


def _open_gaps(canvas: _Canvas) -> None:
    """Open clefts and holes, where the slide is empty. Lymphocytes lie close together and have none."""
    height, width = canvas.tissue.shape
    generator = canvas.generator
    field = speckles(height, width, int(generator.integers(14, 40)), generator)
    field += 0.8 * float(generator.uniform(0, 1)) * canvas.fibers
    threshold = np.quantile(field, 1 - generator.uniform(0.002, 0.06))
    gaps = np.clip((field - threshold) * 4, 0, 1) * (canvas.tissue != LYMPHOCYTES)
    canvas.stains[:] *= 1 - cv2.GaussianBlur(np.asarray(gaps, np.float32), (0, 0), 1.2)[..., None]


def _colored(canvas: _Canvas) -> NDArray[np.uint8]:
    """Turn amounts of stains into colors, uint8 (H, W, 3), RGB; the stains differ a little from ROI to ROI."""
    generator, (height, width) = canvas.generator, canvas.tissue.shape
    stains = np.abs(np.array([HEMATOXYLIN, EOSIN]) + generator.normal(0, 0.075, (2, 3)))
    stains = np.asarray(stains / np.linalg.norm(stains, axis=1, keepdims=True), np.float32)
    shade = 1 + 0.08 * smooth_field(height, width, 300, generator)[..., None]
    optical_density = np.asarray((canvas.stains @ stains) * shade * generator.uniform(0.8, 1.25), np.float64)
    light = generator.uniform(228, 250, 3) * np.exp(-optical_density)
    noise = generator.normal(0, generator.uniform(1, 6), light.shape)
    return np.clip(light + noise, 0, 255).astype(np.uint8)


def _through_jpeg(image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Compress and decode an image, because slides are stored as JPEG."""
    quality = int(generator.integers(60, 95))
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    # IMREAD_COLOR_RGB needs a newer OpenCV than this project does.
    blue_green_red = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(blue_green_red[..., ::-1])
