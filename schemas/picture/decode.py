"""Decode image files to arrays: images as RGB, masks as the indices that they store, without re-indexing.

Both are rotated or flipped by their orientation tag, as viewers and annotation tools do. Arrays are H, W.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from schemas.errors import SourceError
from schemas.picture.orientation import UPRIGHT, turned_array, turned_image, turned_size
from schemas.picture.picture_file import PictureFile, open_picture
from schemas.picture.png import rgb_pixels
from schemas.picture.tiff import read_tiff_codes

LabelArray = NDArray[np.uint8 | np.uint16]
ValueArray = NDArray[np.uint8 | np.uint16 | np.uint32]

# Two TIFF tags, and one value of the second: TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0

_LOSSY_FORMATS = ("JPEG", "MPO")
_ALPHA_MODES = ("LA", "PA", "La", "RGBA", "RGBa")


def read_image(path: Path, *, opaque: bool = False) -> NDArray[np.uint8]:
    """Read an RGB image.

    Args:
        path: The file.
        opaque: Whether to refuse an image with transparent pixels.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        SourceError: The file is absent, damaged, too large, or not an image of 8 bits per channel.
    """
    with open_picture(path) as picture, picture.image(pixels=True) as image:
        # Pillow reads an image of 16 bits per channel as RGB or RGBA, and keeps only the upper eight bits.
        if image.mode in ("RGB", "RGBA") and _bit_depth(picture, image) > 8:
            raise SourceError(path, "has 16 bits per channel, which is not 8-bit RGB", "convert it to 8-bit RGB")
        if image.mode not in ("RGB", "RGBA", "L", "P", "1"):
            raise SourceError(path, f"has mode {image.mode}, which is not 8-bit RGB", "convert it to RGB")
        stored = rgb_pixels(picture, image)
        if stored is not None:
            return np.ascontiguousarray(turned_array(stored, picture.orientation(image)))
        shown = _shown(picture, image)
        if opaque and image.mode == "RGBA" and np.asarray(shown)[..., 3].min(initial=255) < 255:
            raise SourceError(path, "has transparent pixels, whose color stands for no class", "save it without alpha")
        if isinstance(image.info.get("transparency"), bytes):
            # Pillow warns when it converts a palette with transparency to RGB in one step.
            shown = shown.convert("RGBA")
        return np.asarray(shown if shown.mode == "RGB" else shown.convert("RGB"))


@overload
def read_mask(path: Path) -> LabelArray: ...


@overload
def read_mask(path: Path, *, wide: Literal[True]) -> ValueArray: ...


def read_mask(path: Path, *, wide: bool = False) -> ValueArray:
    """Read the pixel values of a mask: the indices of a palettized file, or the values of a gray one.

    Args:
        path: The file.
        wide: Whether values may have up to 32 bits, as ids of instances may; otherwise up to 16.

    Returns:
        uint8 or uint16 (H, W), or uint32 if `wide` is set and a value needs it. The file may store integers of 1 to 64
        bits, as long as their values fit into 16 or 32 bits.

    Raises:
        SourceError: The file is absent, damaged, too large or lossy, or has more than one value for each pixel.
    """
    with open_picture(path) as picture:
        _check_mask(picture)
        if _needs_tifffile(picture):
            assert picture.tiff is not None
            picture.check_claim(picture.tiff.shown_size, "TIFF")
            return narrowed(path, read_tiff_codes(path, picture.file, picture.tiff), wide=wide)
        with picture.image(pixels=True) as image:
            return narrowed(path, _pillow_codes(picture, image, wide=wide), wide=wide)


def narrowed(path: Path, values: NDArray[Any], *, wide: bool) -> ValueArray:
    """Return integers as uint16 if they fit, otherwise as uint32; uint8 stays as it is.

    Args:
        path: The file, for messages.
        values: Integers, (H, W).
        wide: Whether values beyond 16 bits are allowed.

    Raises:
        SourceError: A value is negative or has too many bits.
    """
    if values.dtype == np.uint8 or values.dtype == np.uint16:
        return values
    if values.min(initial=0) < 0 or values.max(initial=0) > np.iinfo(np.uint32 if wide else np.uint16).max:
        bits, bound = (32, 2**32 - 1) if wide else (16, 65535)
        raise SourceError(path, f"has values beyond {bits} bits", f"save the mask with values of 0 to {bound}")
    return values.astype(np.uint16 if values.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32)


def _check_mask(picture: PictureFile) -> None:
    """Refuse a TIFF whose values are not class codes."""
    if picture.tiff is None:
        return
    if picture.tiff.lossy:
        what = f"is compressed with {picture.tiff.lossy}, which can change class codes along every edge"
        raise SourceError(picture.path, what, "save the mask without loss, for example as PNG")
    if picture.tiff.photometric == _WHITE_IS_ZERO:
        # Pillow inverts the values, which is right for an image and wrong for codes.
        what = "stores white as 0, so its values are not class codes"
        raise SourceError(picture.path, what, "save it with black as 0")


def _needs_tifffile(picture: PictureFile) -> bool:
    """Whether the file is a mask of signed or wide integers, which Pillow reads wrongly or not at all."""
    tiff = picture.tiff
    return tiff is not None and not tiff.pillow_reads_codes and tiff.samples == 1


def _pillow_codes(picture: PictureFile, image: Image.Image, *, wide: bool) -> NDArray[Any]:
    path = picture.path
    if image.format in _LOSSY_FORMATS:
        what = "is a JPEG, which changes class codes along every edge"
        raise SourceError(path, what, "save the mask as PNG from its source, without loss")
    if image.mode in _ALPHA_MODES:
        what = f"has an alpha channel (mode {image.mode})"
        raise SourceError(path, what, "save the mask without alpha, palettized or gray")
    if image.mode in ("P", "L", "1"):
        # Pillow scales gray of 1, 2 or 4 bits to 0..255; dividing by the step restores the stored value.
        step = 1 if image.mode == "P" else 255 // ((1 << min(_bit_depth(picture, image), 8)) - 1)
        values = np.asarray(_shown(picture, image), dtype=np.uint8)
        return values if image.mode == "1" or step == 1 else values // np.uint8(step)
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(_shown(picture, image))
        # Pillow keeps the byte order of a big-endian file; `astype` converts it to the order of this machine.
        return values.astype(np.uint16) if values.dtype.itemsize == 2 else values
    if wide:
        what = f"is a color image (mode {image.mode}), but a mask of instances has one number per pixel"
        raise SourceError(path, what, "save it gray, with the number of the instance as pixel value, in 16 or 32 bits")
    what = f"is a color image (mode {image.mode}), but a mask has one class code per pixel"
    remedy = "save it palettized or gray, with the code as pixel value, or give bcss-prep its --colors"
    raise SourceError(path, what, remedy)


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file, which is read without decoding the pixels.

    Attributes:
        size: Width and height in pixels, after the orientation tag is applied.
        wide: Whether values may need more than 8 bits.
        palette_rgb: Red, green and blue of each index; empty without a palette.
        is_color: Whether the file stores red, green and blue without a palette and without loss.
        turned: Whether the orientation tag rotates or flips the image.
    """

    size: tuple[int, int]
    wide: bool
    palette_rgb: bytes
    turned: bool
    is_color: bool = False


def image_header(path: Path) -> ImageHeader:
    """Read a file's header.

    Raises:
        SourceError: The file is absent, too large, or not an image.
    """
    with open_picture(path) as picture:
        if _needs_tifffile(picture):
            assert picture.tiff is not None
            picture.check_claim(picture.tiff.shown_size, "TIFF")
            return ImageHeader(picture.tiff.shown_size, True, b"", picture.tiff.orientation != UPRIGHT)
        with picture.image(pixels=False) as image:
            palette = _palette_rgb(image) if image.mode == "P" else b""
            orientation = picture.orientation(image)
            # Pillow has already applied the orientation tag to the size of a TIFF.
            size = image.size if picture.tiff is not None else turned_size(image.size, orientation)
            has_loss = image.format in _LOSSY_FORMATS or (picture.tiff is not None and bool(picture.tiff.lossy))
            is_color = image.mode in ("RGB", "RGBA") and not has_loss
            return ImageHeader(size, image.mode.startswith("I"), palette, orientation != UPRIGHT, is_color)


def _palette_rgb(image: Image.Image) -> bytes:
    """Red, green and blue of each index of a palettized image."""
    holder = image
    if image.palette is not None:
        # Pillow decodes all pixels before it returns the palette, so give the palette to an image of one pixel.
        holder = Image.new("P", (1, 1))
        holder.putpalette(image.palette)
    return bytes(holder.getpalette("RGB") or ())


def _shown(picture: PictureFile, image: Image.Image) -> Image.Image:
    """Decode an image and apply its orientation tag; Pillow itself applies the tag of a TIFF."""
    return image if picture.tiff is not None else turned_image(image, picture.orientation(image))


def _bit_depth(picture: PictureFile, image: Image.Image) -> int:
    """Bits of a channel, as the file stores them."""
    if isinstance(image, TiffImageFile):
        depth = cast("tuple[int, ...] | int", image.tag_v2.get(_BITS_PER_SAMPLE, 1))
        return depth if isinstance(depth, int) else depth[0]
    if image.format != "PNG":
        return 8
    # IHDR always comes first: 8 bytes of signature, 8 of chunk header, width, height, then the bit depth at byte 24.
    with picture.path.open("rb") as file:
        return file.read(25)[24]
