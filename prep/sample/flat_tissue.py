"""Draw ROIs of smooth regions, each class with its own ground color and density of nuclei.

The corners are outside the annotated region (code 0), and one patch is excluded (code 7).
Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from prep.sample.field import smooth_field
from prep.sample.nuclei import draw_nuclei
from prep.sample.tissue_class import (
    EXCLUDE,
    LOOKS,
    LYMPHOCYTES,
    NECROSIS,
    OUTSIDE,
    STROMA,
    TUMOR,
    VESSEL,
    Look,
    cut_corners,
)


@dataclass(frozen=True)
class FlatTissue:
    """How the tissue of a ROI looks.

    Attributes:
        looks: How each class is painted, by its code.
        head_starts: Each pixel gets the class whose smooth random field, plus its head start, is the highest there.
        region_px: Distance in pixels over which the random fields change.
    """

    looks: dict[int, Look]
    head_starts: dict[int, float]
    region_px: int


PLAIN = FlatTissue(LOOKS, {TUMOR: 0.25, STROMA: 0.3, LYMPHOCYTES: -0.15, NECROSIS: -0.2}, 160)


def draw_flat(
    height: int, width: int, generator: np.random.Generator, tissue: FlatTissue = PLAIN
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


def random_flat_tissue(generator: np.random.Generator) -> FlatTissue:
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
    head_starts = {code: start + float(generator.normal(0, 0.25)) for code, start in PLAIN.head_starts.items()}
    return FlatTissue(looks, head_starts, int(generator.integers(60, 220)))


def _draw_labels(height: int, width: int, generator: np.random.Generator, tissue: FlatTissue) -> NDArray[np.uint8]:
    codes = np.array(list(tissue.head_starts), np.uint8)
    fields = [smooth_field(height, width, tissue.region_px, generator) + start for start in tissue.head_starts.values()]
    labels = codes[np.argmax(fields, axis=0)]
    for code, count, share in ((VESSEL, 4, 30), (EXCLUDE, 1, 20)):
        for _ in range(count):
            center = (int(generator.integers(0, width)), int(generator.integers(0, height)))
            axes = tuple(int(a) for a in generator.integers(height // share // 2 + 2, height // share + 4, 2))
            cv2.ellipse(labels, center, axes, float(generator.uniform(0, 180)), 0, 360, code, -1)
    cut_corners(labels)
    return labels
