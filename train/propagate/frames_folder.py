"""Follow objects through a folder of frames, and write a palettized PNG for each frame.

Axes: O objects, H and W pixels of a frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import SourceError
from schemas.picture.decode import read_image, read_mask
from train.model.predictor import MaskPredictor
from train.propagate.follow import follow

NOT_OBJECTS = (0, 255)
"""Mask values that are no object: background, and pixels that are ignored."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
_LAST_DIGITS = re.compile(r"\d+$")


def find_frames(folder: Path) -> list[Path]:
    """Return the images of a folder in the order of the numbers that end their names.

    Raises:
        SourceError: The folder does not exist, has no image, or the name of an image does not end in a number of its
            own.
    """
    if not folder.is_dir():
        raise SourceError(folder, "is not a folder of frames", "give the folder of one sequence")
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        digits = _LAST_DIGITS.search(path.stem)
        if digits is None or int(digits[0]) in numbered:
            what = "does not end in a frame number" if digits is None else "has the number of another frame"
            raise SourceError(path, what, "name each frame as in 00000.jpg")
        numbered[int(digits[0])] = path
    if not numbered:
        raise SourceError(folder, "has no image", f"give a folder of {', '.join(_SUFFIXES)}")
    return [numbered[number] for number in sorted(numbered)]


def predict_frames(
    predictor: MaskPredictor,
    folder: Path,
    first_mask: Path,
    out: Path,
    on_frame: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Follow the objects of the first frame's mask through all frames, and write one mask for each frame.

    Args:
        predictor: The model.
        folder: The frames.
        first_mask: The mask of the first frame: each value but 0 and 255 is an object.
        out: Folder for the masks. They have the values and the palette of the first mask. Where objects overlap, a
            pixel belongs to the one with the highest logit.
        on_frame: Function called with the number of finished frames and the number of all frames.

    Returns:
        The written files.

    Raises:
        SourceError: A file cannot be read, the mask has no object, or a frame has another size than the mask.
    """
    frames, mask = find_frames(folder), read_mask(first_mask)
    values = np.setdiff1d(np.unique(mask), NOT_OBJECTS)
    if not len(values):
        raise SourceError(first_mask, "shows no object", "every value but 0 and 255 is an object")
    palette = _palette(first_mask)
    out.mkdir(parents=True, exist_ok=True)
    images = (_read_frame(path, mask.shape, first_mask) for path in frames)
    written: list[Path] = []
    for path, logits in zip(frames, follow(predictor, images, mask == values[:, None, None], len(frames)), strict=True):
        codes = np.where(logits.max(0) > 0, values[logits.argmax(0)], 0).astype(mask.dtype)
        picture = Image.fromarray(codes)
        if codes.dtype == np.uint8:
            picture.putpalette(palette)
        written.append(out / f"{path.stem}.png")
        picture.save(written[-1])
        if on_frame:
            on_frame(len(written), len(frames))
    return written


def _read_frame(path: Path, size_hw: tuple[int, ...], first_mask: Path) -> NDArray[np.uint8]:
    # Torch warns of arrays that cannot be written to, as those of JPEG files are.
    image = read_image(path).copy()
    if image.shape[:2] != size_hw:
        (height, width), (mask_height, mask_width) = image.shape[:2], size_hw
        what = f"is {width} x {height} pixels, but {first_mask.name} is {mask_width} x {mask_height}"
        raise SourceError(path, what, "give frames and a mask of one size")
    return image


def _palette(mask: Path) -> list[int]:
    """Return red, green and blue of 256 values: those of the mask, or colors that differ from value to value."""
    with Image.open(mask) as picture:
        own = picture.getpalette() if picture.mode == "P" else None
    colors = [channel for value in range(256) for channel in (37 * value % 256, 91 * value % 256, 173 * value % 256)]
    return colors if own is None else [*own, *colors[len(own) :]]
