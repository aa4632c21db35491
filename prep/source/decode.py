"""Decode image files to arrays: images as RGB, masks as the indices that they store, without re-indexing.

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
"""The formats that are read; the name of the file does not matter. For other formats Pillow runs programs, such as
Ghostscript."""

_JPEG_PX = 1024

_PX_A_BYTE = {"PNG": 8 * 1032, "JPEG": _JPEG_PX, "MPO": _JPEG_PX, "TIFF": 1 << 17}
"""Maximum pixels that one byte of a file can hold, by Pillow's name of the format; MPO is a JPEG followed by others.

Deflate makes at most 1032 bytes of one byte, and a pixel of a PNG takes at least one bit. In a JPEG a block of 64
pixels takes at least two bits. In a TIFF with Group 4 compression a blank line takes one bit.
"""

# Tags of a TIFF, and one value: TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0

_ALPHA_MODES = ("LA", "PA", "La", "RGBA", "RGBa")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an RGB image.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        SourceError: The file is absent, damaged, too large, or not an image of 8 bits a channel.
    """
    with _opened(path, pixels=True) as image:
        # Pillow reads 16 bits a channel as RGB, and keeps the higher eight bits.
        if image.mode == "RGB" and _bit_depth(path, image) > 8:
            raise SourceError(path, "has 16 bits a channel, which is not 8-bit RGB", "convert it to 8-bit RGB")
        if image.mode not in ("RGB", "RGBA", "L", "P", "1"):
            raise SourceError(path, f"has mode {image.mode}, which is not 8-bit RGB", "convert it to RGB")
        if isinstance(image.info.get("transparency"), bytes):
            # Pillow converts a palette with transparency to RGB with a warning, and here a warning means damage.
            return np.asarray(image.convert("RGBA").convert("RGB"))
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path) -> LabelArray:
    """Read the pixel values of a mask: the indices of a palettized file, or the values of a gray one.

    Returns:
        uint8 or uint16 (H, W); a file may have 1, 2, 4, 8 or 16 bits a pixel.

    Raises:
        SourceError: The file is absent, damaged or too large, or has more than one value for each pixel.
    """
    with _opened(path, pixels=True) as image:
        if image.mode in _ALPHA_MODES:
            raise SourceError(
                path, f"has an alpha channel (mode {image.mode})", "save the mask without alpha, palettized or gray"
            )
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            # Pillow inverts the values, which is right for an image and wrong for codes.
            raise SourceError(path, "stores white as 0, so its values are not class codes", "save it with black as 0")
        if image.mode in ("P", "L", "1"):
            # Pillow scales gray of 1, 2 or 4 bits to 0..255; dividing by the step restores the stored value.
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
            f"is a color image (mode {image.mode}), but a mask has one class code a pixel",
            "save it palettized or gray, with the code as pixel value",
        )


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file, which is read without decoding the pixels.

    Attributes:
        size: Width and height in pixels.
        mode: Pillow's name for the pixel format.
        palette_rgb: Red, green and blue of each index; empty without a palette.
    """

    size: tuple[int, int]
    mode: str
    palette_rgb: bytes


def image_header(path: Path) -> ImageHeader:
    """Read a file's header.

    Raises:
        SourceError: The file is absent, too large, or not an image.
    """
    with _opened(path) as image:
        palette = bytes(image.getpalette("RGB") or ()) if image.mode == "P" else b""
        return ImageHeader(image.size, image.mode, palette)


def _bit_depth(path: Path, image: Image.Image) -> int:
    """Bits of a channel, as the file stores them."""
    if isinstance(image, TiffImageFile):
        depth = cast("tuple[int, ...] | int", image.tag_v2.get(_BITS_PER_SAMPLE, 1))
        return depth if isinstance(depth, int) else depth[0]
    if image.format != "PNG":
        return 8
    # IHDR always comes first: 8 bytes of signature, 8 of chunk header, width, height, then the bit depth at byte 24.
    with path.open("rb") as file:
        return file.read(25)[24]


def _check_bytes(path: Path, image: Image.Image) -> None:
    """Compare the checksums of a PNG's chunks: while Pillow decodes, it does not, and would return wrong pixels."""
    if image.format == "PNG":
        with _FileReader(path) as file, Image.open(file, formats=("PNG",)) as twin:
            twin.verify()


class _FileReader(io.BufferedReader):
    """Reads a file, and never allocates more memory than the file has bytes, even if a chunk in it claims more."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes; the rest of the file unless given."""
        # A little more is asked for, so that a failing device reports its error instead of an end of file.
        left = max(self._end - self.tell(), 4096)
        return super().read(left if size is None or size < 0 else min(size, left))


def _check_claim(path: Path, image: Image.Image) -> None:
    """Refuse an image whose header claims too many pixels, before memory is allocated for them."""
    claimed = image.width * image.height
    if claimed > MAX_ROI_PX:
        raise SourceError(
            path, f"claims {image.width} x {image.height} px, over the bound of {MAX_ROI_PX} px", "cut the ROI"
        )
    size_bytes = path.stat().st_size
    if claimed > _PX_A_BYTE[str(image.format)] * size_bytes:
        raise SourceError(
            path,
            f"claims {image.width} x {image.height} px, which {size_bytes} bytes cannot hold",
            "download or export it again",
        )


@contextmanager
def _opened(path: Path, *, pixels: bool = False) -> Generator[Image.Image]:
    """Open a file; if its pixels are wanted, check first that its bytes are undamaged."""
    pillows_bound = Image.MAX_IMAGE_PIXELS
    try:
        # `_check_claim` replaces Pillow's bound, which is smaller than a large ROI.
        Image.MAX_IMAGE_PIXELS = None
        # Pillow only warns when it skips a damaged tag, even if that is the palette.
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
        raise SourceError(path, "is not a PNG, JPEG or TIFF image", "download or export it again") from error
    except MemoryError as error:
        raise SourceError(path, "needs more memory than is available", "cut the ROI") from error
    except SourceError:
        raise
    except Exception as error:
        # A damaged file makes Pillow raise OSError, SyntaxError, zlib.error, TypeError and more.
        raise SourceError(path, f"is damaged ({error})", "download or export it again") from error
    finally:
        Image.MAX_IMAGE_PIXELS = pillows_bound
