"""Follow objects through a folder of frames or a video, and write a palettized PNG for each frame.

Axes: O objects, H and W pixels of a frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import ConfigError, SourceError
from schemas.picture.decode import read_image, read_mask
from train.model.predictor import MaskPredictor
from train.propagate.follow import follow
from train.propagate.video import VIDEO_SUFFIXES, count_frames, is_video, read_video

NOT_OBJECTS = (0, 255)
"""Mask values that are not objects: background, and pixels that are ignored."""

FRAMES_FILE = ".bcss-train-frames"
"""Marks the folders that `predict_frames` writes, so that masks of others are not replaced."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_LAST_DIGITS = re.compile(r"\d+$")


def find_frames(folder: Path) -> list[Path]:
    """Return the images of a folder in the order of the numbers that end their names.

    Raises:
        SourceError: The folder does not exist, has no image, or the name of an image does not end in a number of its
            own.
    """
    if not folder.is_dir():
        videos = ", ".join(VIDEO_SUFFIXES)
        raise SourceError(
            folder, "is not a folder of frames", f"give the folder of one sequence, or a video ({videos})"
        )
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
            continue
        digits = _LAST_DIGITS.search(path.stem)
        if digits is None or int(digits[0]) in numbered:
            what = "does not end in a frame number"
            if digits is not None:
                what = f"has the frame number of {numbered[int(digits[0])].name}"
            raise SourceError(path, what, "name each frame as in 00000.jpg")
        numbered[int(digits[0])] = path
    if not numbered:
        raise SourceError(folder, "has no image", f"give a folder of {', '.join(_SUFFIXES)}")
    return [numbered[number] for number in sorted(numbered)]


def predict_frames(
    predictor: MaskPredictor,
    source: Path,
    first_mask: Path,
    out: Path,
    on_frame: Callable[[int, int], None] | None = None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Follow the objects of the first frame's mask through all frames, and write one mask for each frame.

    Args:
        predictor: The model.
        source: The folder of the frames, or a video.
        first_mask: The mask of the first frame: each value but 0 and 255 is an object.
        out: Folder for the masks. They are named after the frames of a folder, or as in 00000.png for a video. They
            have the values and the palette of the first mask. Where objects overlap, a pixel belongs to the one with
            the highest logit.
        on_frame: Function called with the number of finished frames and the number of all frames.
        overwrite: Whether files may be replaced that no earlier call wrote.

    Returns:
        The written files.

    Raises:
        SourceError: A file cannot be read, the mask has no object, or a frame has another size than the mask.
        ConfigError: The results would lie among the frames or the masks, or would replace files that no earlier call
            wrote.
    """
    mask = read_mask(first_mask)
    values = np.setdiff1d(np.unique(mask), NOT_OBJECTS)
    if not len(values):
        raise SourceError(first_mask, "shows no object", "every value but 0 and 255 is an object")
    if out.resolve() in (source.resolve(), first_mask.resolve().parent):
        raise ConfigError(out, "holds frames or masks that results could replace", "choose another --out")
    palette = _palette(first_mask)
    names, frames = _frames_of(source)
    taken = next((path for name in names if (path := out / f"{name}.png").exists()), None)
    if taken is not None and not overwrite and not (out / FRAMES_FILE).exists():
        what = "is in the way, and no earlier prediction wrote it"
        raise ConfigError(taken, what, "choose another --out, or give --overwrite to replace it")
    images = (_of_size(where, image, mask.shape, first_mask) for where, image in frames)
    masks = follow(predictor, images, mask == values[:, None, None], len(names))
    out.mkdir(parents=True, exist_ok=True)
    (out / FRAMES_FILE).touch()
    written: list[Path] = []
    for name, logits in zip(names, masks, strict=True):
        codes = np.where(logits.max(0) > 0, values[logits.argmax(0)], 0).astype(mask.dtype)
        picture = Image.fromarray(codes)
        if codes.dtype == np.uint8:
            picture.putpalette(palette)
        written.append(out / f"{name}.png")
        picture.save(written[-1])
        if on_frame:
            on_frame(len(written), len(names))
    return written


def _frames_of(source: Path) -> tuple[list[str], Iterator[tuple[Path, NDArray[np.uint8]]]]:
    """Return the names of the frames, and an iterator over the file and the image of each."""
    if is_video(source):
        names = [f"{number:05d}" for number in range(count_frames(source))]
        return names, ((source, image) for image in read_video(source))
    paths = find_frames(source)
    # Torch warns of arrays that cannot be written to, as those of JPEG files are.
    return [path.stem for path in paths], ((path, read_image(path).copy()) for path in paths)


def _of_size(where: Path, image: NDArray[np.uint8], size_hw: tuple[int, ...], first_mask: Path) -> NDArray[np.uint8]:
    """Return the image of a frame, which must have the size of the mask."""
    if image.shape[:2] != size_hw:
        (height, width), (mask_height, mask_width) = image.shape[:2], size_hw
        what = f"is {width} x {height} pixels, but {first_mask.name} is {mask_width} x {mask_height}"
        raise SourceError(where, what, "give frames and a mask of one size")
    return image


def _palette(mask: Path) -> list[int]:
    """Return red, green and blue of 256 values: those of the mask, or colors that differ from value to value."""
    with Image.open(mask) as picture:
        own = picture.getpalette() if picture.mode == "P" else None
    colors = [channel for value in range(256) for channel in (37 * value % 256, 91 * value % 256, 173 * value % 256)]
    return colors if own is None else [*own, *colors[len(own) :]]
