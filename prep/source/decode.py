"""Decode image files to arrays: RGB as it is, masks as the indices that they store, never re-indexed.

Arrays are H, W.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from schemas.errors import SourceError
from schemas.limits import MAX_ROI_PX

LabelArray = NDArray[np.uint8 | np.uint16]

_FORMATS = ("PNG", "JPEG", "TIFF")
"""What a file may be, whatever its name: for some of the other formats Pillow runs a program, such as Ghostscript."""

_JPEG_PX = 1024

_PX_A_BYTE = {"PNG": 8 * 1032, "JPEG": _JPEG_PX, "MPO": _JPEG_PX, "TIFF": 1 << 17}
"""No byte of a file holds more pixels; by Pillow's name of the format, where MPO is a JPEG with others behind it.

Deflate makes 1032 bytes of one, and a pixel of a PNG takes a bit at least. A block of 64 pixels takes two bits of a
JPEG at least. In a TIFF by Group 4 a blank line takes one.
"""

# Tags of a TIFF, and one value: TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0

_ALPHA_MODES = ("LA", "PA", "La", "RGBA", "RGBa")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an RGB image as uint8 (H, W, 3).

    Raises:
        SourceError: The file is absent, damaged, too large, or not an image of 8 bits a channel.
    """
    with _opened(path, pixels=True) as image:
        # Of 16 bits a channel, Pillow keeps the higher eight.
        if image.mode == "RGB" and _bit_depth(path, image) > 8:
            raise SourceError(path, "has 16 bits a channel, which is not 8-bit RGB", "convert it to 8-bit RGB")
        if image.mode not in ("RGB", "RGBA", "L", "P", "1"):
            raise SourceError(path, f"has mode {image.mode}, which is not 8-bit RGB", "convert it to RGB")
        if isinstance(image.info.get("transparency"), bytes):
            # Of a palette with transparency, Pillow makes RGB only with a warning, which here is damage.
            return np.asarray(image.convert("RGBA").convert("RGB"))
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path) -> LabelArray:
    """Read a mask's pixel values as uint8 or uint16 (H, W).

    Palettized files give their indices, grey files their values, of 1, 2, 4, 8 or 16 bits.

    Raises:
        SourceError: The file is absent, damaged, too large, or has more than one value a pixel.
    """
    with _opened(path, pixels=True) as image:
        if image.mode in _ALPHA_MODES:
            raise SourceError(
                path, f"has an alpha channel (mode {image.mode})", "save the mask without alpha, palettized or grey"
            )
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            # For an image that is right: Pillow turns the values round.
            raise SourceError(path, "stores white as 0, and so has no codes as values", "save it with black as 0")
        if image.mode in ("P", "L", "1"):
            # Pillow stretches grey of 1, 2 or 4 bits to 0..255; dividing by the step gives the stored value back.
            step = 1 if image.mode == "P" else 255 // ((1 << min(_bit_depth(path, image), 8)) - 1)
            values = np.asarray(image, dtype=np.uint8)
            return values if image.mode == "1" or step == 1 else values // np.uint8(step)
        if image.mode.startswith("I;16") or image.mode == "I":
            values = np.asarray(image)
            if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
                raise SourceError(path, "has values beyond 16 bits", "save the mask with values of 0 to 65535")
            return values.astype(np.uint16)
        raise SourceError(
            path,
            f"is a colour image (mode {image.mode}), and a mask has one class code a pixel",
            "save it palettized or grey, with the code as pixel value",
        )


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of itself before it is decoded.

    Attributes:
        size: Width and height in pixels.
        mode: Pillow's name for the pixel format.
        palette_rgb: Red, green and blue of each index, empty without a palette.
    """

    size: tuple[int, int]
    mode: str
    palette_rgb: bytes


def image_header(path: Path) -> ImageHeader:
    """Read a file's header.

    Raises:
        SourceError: The file is absent, too large, or no image.
    """
    with _opened(path) as image:
        palette = bytes(image.getpalette("RGB") or ()) if image.mode == "P" else b""
        return ImageHeader(image.size, image.mode, palette)


def _bit_depth(path: Path, image: Image.Image) -> int:
    """Bits a channel, as the file stores them."""
    if isinstance(image, TiffImageFile):
        depth = cast("tuple[int, ...] | int", image.tag_v2.get(_BITS_PER_SAMPLE, 1))
        return depth if isinstance(depth, int) else depth[0]
    if image.format != "PNG":
        return 8
    # IHDR is always first: 8 bytes of signature, 8 of chunk header, width, height, then the bit depth at byte 24.
    with path.open("rb") as file:
        return file.read(25)[24]


def _check_bytes(path: Path, image: Image.Image) -> None:
    """Compare the checksums of a PNG's chunks, which Pillow does not while it decodes, and gives other pixels."""
    if image.format == "PNG":
        with _FileReader(path) as file, Image.open(file, formats=("PNG",)) as twin:
            twin.verify()


class _FileReader(io.BufferedReader):
    """Reads what a file holds and never asks for memory for more, whatever a chunk in it claims to have."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most so many bytes, or all that is left."""
        # Behind its end a little is asked for, too: a device that fails says so then.
        left = max(self._end - self.tell(), 4096)
        return super().read(left if size is None or size < 0 else min(size, left))


def _check_claim(path: Path, image: Image.Image) -> None:
    """Refuse a size that memory is not to be had for, before it is."""
    claimed = image.width * image.height
    if claimed > MAX_ROI_PX:
        raise SourceError(
            path, f"claims {image.width} x {image.height} px, over the bound of {MAX_ROI_PX} px", "cut the ROI"
        )
    size_bytes = path.stat().st_size
    if claimed > _PX_A_BYTE[str(image.format)] * size_bytes:
        raise SourceError(
            path,
            f"claims {image.width} x {image.height} px, which no {size_bytes} bytes can hold",
            "download or export it again",
        )


@contextmanager
def _opened(path: Path, *, pixels: bool = False) -> Generator[Image.Image]:
    """Open a file, and where its pixels are wanted see first that they are those that were written."""
    pillows_bound = Image.MAX_IMAGE_PIXELS
    try:
        # Our bound below takes the place of Pillow's, which is under the size of a whole-slide ROI.
        Image.MAX_IMAGE_PIXELS = None
        # Of a tag that it skips, be it the palette, Pillow only warns.
        with (
            warnings.catch_warnings(action="error"),
            _FileReader(path) as file,
            Image.open(file, formats=_FORMATS) as image,
        ):
            _check_claim(path, image)
            if pixels:
                _check_bytes(path, image)
            yield image
    except FileNotFoundError as error:
        raise SourceError(path, "is not there", "check the path") from error
    except PermissionError as error:
        raise SourceError(path, "cannot be read", "check its permissions") from error
    except UnidentifiedImageError as error:
        raise SourceError(path, "is no PNG, JPEG or TIFF image", "download or export it again") from error
    except MemoryError as error:
        raise SourceError(path, "needs more memory than there is", "cut the ROI") from error
    except SourceError:
        raise
    except Exception as error:
        # A damaged file makes Pillow fail in any way there is: OSError, SyntaxError, zlib.error, TypeError and more.
        raise SourceError(path, f"is damaged ({error})", "download or export it again") from error
    finally:
        Image.MAX_IMAGE_PIXELS = pillows_bound
