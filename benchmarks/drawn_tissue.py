"""Draw tissue on real masks, so that a model sees the shapes of tissue whose images are not there.

Arrays are H, W. Masks of BCSS go in; pieces of 512 px come out, images in `images/` and masks in `masks/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prep.sample.field import smooth_field
from prep.sample.textured_tissue import paint_textured, part_tumor
from prep.sample.tissue_class import EXCLUDE, LYMPHOCYTES, NECROSIS, OUTSIDE, STROMA, TUMOR, VESSEL

MOST_NOT_ANNOTATED = 0.6
"""Pieces of which a larger share is not annotated are left out."""

PIECE_PX, SCALE = 512, 2
"""Tissue is drawn at half of its size, because the cells of `paint_textured` are half as large as real ones."""

FAT, PLASMA_CELLS, OTHER_IMMUNE, UNDETERMINED, OTHER = 9, 10, 11, 15, 21
NOT_ANNOTATED = (OUTSIDE, EXCLUDE, UNDETERMINED)
DRAWN_AS = {code: code for code in (TUMOR, STROMA, LYMPHOCYTES, NECROSIS, VESSEL)} | {
    FAT: STROMA,
    PLASMA_CELLS: LYMPHOCYTES,
    OTHER_IMMUNE: LYMPHOCYTES,
    OTHER: STROMA,
}
"""The class that each code is drawn and labeled as. All other codes become `EXCLUDE`."""


def draw_on_masks(masks: list[Path], out: Path, times: int) -> dict[str, str]:
    """Draw each mask several times, each time with other stains, textures and details; every second time mirrored.

    The mirrored ones have two codes, tumor and other, as ROIs have where only tumor was annotated.

    Args:
        masks: Files whose names are those of BCSS.
        out: Folder with `images/` and `masks/`, to which pieces are added.
        times: How often each mask is drawn.

    Returns:
        The patient of each piece by its name. All pieces of a mask are of one patient.
    """
    patients: dict[str, str] = {}
    for number, path in enumerate(masks):
        patient = f"drawn-{path.name[8:12]}"
        labels = _drawn_classes(np.asarray(Image.open(path)))[::SCALE, ::SCALE]
        for turn in range(times):
            generator = np.random.default_rng([number, turn])
            seen = np.ascontiguousarray(labels[:, ::-1] if turn % 2 else labels)
            image = paint_textured(_with_details(seen, generator), generator)
            start_px = int(generator.integers(0, PIECE_PX // SCALE // 4))
            for name, piece in _pieces(seen.shape, start_px):
                stem = f"{patient}-{turn}-{name}"
                kept = tumor_alone(seen[piece]) if turn % 2 else seen[piece]
                if np.isin(kept, NOT_ANNOTATED).mean() > MOST_NOT_ANNOTATED:
                    continue
                _enlarged(image[piece], Image.Resampling.BICUBIC).save(out / "images" / f"{stem}.png", compress_level=1)
                _enlarged(kept, Image.Resampling.NEAREST).save(out / "masks" / f"{stem}.png")
                patients[stem] = patient
    return patients


def tumor_alone(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels where everything but tumor and what is not annotated has the code `OTHER`."""
    return np.where(np.isin(labels, (TUMOR, *NOT_ANNOTATED)), labels, np.uint8(OTHER))


def _drawn_classes(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.full(256, EXCLUDE, np.uint8)
    table[list(DRAWN_AS)] = list(DRAWN_AS.values())
    return table[labels]


def _with_details(labels: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return the tissue below labels: its outlines are rough, and septa of stroma part the tumor."""
    height, width = labels.shape
    detail_px, reach_px = int(generator.integers(18, 50)), generator.uniform(2, 14)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (np.float32(reach_px) * smooth_field(height, width, detail_px, generator) + at for at in (columns, rows))
    tissue = np.asarray(cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT), np.uint8)
    part_tumor(tissue, 2 * detail_px, generator.uniform(0, 0.12), generator)
    return tissue


def _pieces(shape: tuple[int, ...], start_px: int) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Yield name and place of the pieces, which do not overlap. Whole ROIs would outnumber the real tiles by far."""
    side = PIECE_PX // SCALE
    for y in range(start_px, shape[0] - side + 1, side):
        for x in range(start_px, shape[1] - side + 1, side):
            yield f"{y:04}-{x:04}", (slice(y, y + side), slice(x, x + side))


def _enlarged(pixels: NDArray[np.uint8], how: Image.Resampling) -> Image.Image:
    return Image.fromarray(pixels).resize((PIECE_PX, PIECE_PX), how)
