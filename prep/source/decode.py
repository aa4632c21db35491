"""Decode image files to arrays: images as RGB, masks as the indices that they store, without re-indexing.

Arrays are H, W.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import COMPRESSION_INFO, TiffImageFile

from prep.source.tiff import TiffContent, check_pages, read_tiff_codes, tiff_content
from schemas.errors import SourceError
from schemas.limits import MAX_METADATA_BYTES, MAX_ROI_PX

logger = logging.getLogger(__name__)

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

# Tags of a TIFF, and one value: TIFF 6.0, section 8; EXIF has the same tag of the orientation.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _COLOR_MAP, _ORIENTATION, _WHITE_IS_ZERO = 258, 262, 320, 274, 0

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
            return np.asarray(_turned(path, image).convert("RGBA").convert("RGB"))
        image = _turned(path, image)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path) -> LabelArray:
    """Read the pixel values of a mask: the indices of a palettized file, or the values of a gray one.

    Returns:
        uint8 or uint16 (H, W), turned as its orientation tag says. A file may have integers of 1 to 64 bits, as long
        as the values are 0 to 65535.

    Raises:
        SourceError: The file is absent, damaged, too large or lossy, or has more than one value for each pixel.
    """
    with _FileReader.opened(path) as file:
        content = tiff_content(file)
        _check_lossless(path, content)
        if content is not None and not content.pillow_reads_codes and content.samples == 1:
            return _codes_that_pillow_lacks(path, file, content)
    with _opened(path, pixels=True) as image:
        if image.format in ("JPEG", "MPO"):
            raise SourceError(path, *_LOSSY)
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
            values = np.asarray(_turned(path, image), dtype=np.uint8)
            return values if image.mode == "1" or step == 1 else values // np.uint8(step)
        if image.mode.startswith("I;16") or image.mode == "I":
            values = np.asarray(_turned(path, image))
            if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
                raise SourceError(path, "has values beyond 16 bits", "save the mask with values of 0 to 65535")
            return values.astype(np.uint16)
        raise SourceError(
            path,
            f"is a color image (mode {image.mode}), but a mask has one class code a pixel",
            "save it palettized or gray, with the code as pixel value",
        )


_LOSSY = ("is a JPEG, which changes class codes along every edge", "save the mask as PNG from its source, without loss")


def _check_lossless(path: Path, content: TiffContent | None) -> None:
    if content is not None and content.lossy:
        what = f"is compressed with {content.lossy}, which can change class codes along every edge"
        raise SourceError(path, what, "save the mask without loss, for example as PNG")


def _codes_that_pillow_lacks(path: Path, file: _FileReader, content: TiffContent) -> LabelArray:
    """Decode a mask of signed or wide integers by another library."""
    check_pages(path, content)
    _check_claim(path, content.shown_size, "TIFF")
    if content.photometric == _WHITE_IS_ZERO:
        raise SourceError(path, "stores white as 0, so its values are not class codes", "save it with black as 0")
    with _failures(path):
        return read_tiff_codes(path, file, content)


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file, which is read without decoding the pixels.

    Attributes:
        size: Width and height in pixels, after turning.
        wide: Whether values may need more than 8 bits.
        palette_rgb: Red, green and blue of each index; empty without a palette.
        orientation: Number of the EXIF or TIFF tag by which rows and columns are turned; 1 if they are not.
    """

    size: tuple[int, int]
    wide: bool
    palette_rgb: bytes
    orientation: int


def image_header(path: Path) -> ImageHeader:
    """Read a file's header.

    Raises:
        SourceError: The file is absent, too large, or not an image.
    """
    with _FileReader.opened(path) as file:
        content = tiff_content(file)
    if content is not None and not content.pillow_reads_codes and content.samples == 1:
        _check_claim(path, content.shown_size, "TIFF")
        return ImageHeader(content.shown_size, True, b"", content.orientation)
    with _opened(path) as image:
        palette = bytes(image.getpalette("RGB") or ()) if image.mode == "P" else b""
        if content is not None:
            return ImageHeader(image.size, image.mode.startswith("I"), palette, content.orientation)
        orientation = _orientation(path, image)
        size = (image.height, image.width) if orientation >= _SIDEWAYS else image.size
        return ImageHeader(size, image.mode.startswith("I"), palette, orientation)


_SIDEWAYS = 5
"""The orientations from this number on exchange rows and columns."""


def _orientation(path: Path, image: Image.Image) -> int:
    if image.format == "PNG":
        # Pillow would decode all pixels to look for the chunk behind them.
        exif = Image.Exif()
        exif.load(_png_exif(path))
    else:
        exif = image.getexif()
    value: object = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_exif(path: Path) -> bytes:
    """Return the content of the chunk `eXIf`; empty without one."""
    with _FileReader(path) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return file.read(length)
            file.seek(length + 4, io.SEEK_CUR)
    return b""


def _turned(path: Path, image: Image.Image) -> Image.Image:
    """Turn a decoded image as its EXIF says, like viewers and annotation tools; Pillow itself has turned a TIFF."""
    if isinstance(image, TiffImageFile):
        return image
    method = _TURNS.get(_orientation(path, image))
    return image if method is None else image.transpose(method)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is shown, by the number of its EXIF orientation."""


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

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Generator[_FileReader]:
        """Open a file and close it.

        Raises:
            SourceError: The file is absent or cannot be read.
        """
        with _failures(path), cls(path) as file:
            yield file

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes; the rest of the file unless given."""
        # A little more is asked for, so that a failing device reports its error instead of an end of file.
        left = max(self._end - self.tell(), 4096)
        return super().read(left if size is None or size < 0 else min(size, left))


def _check_claim(path: Path, size: tuple[int, int], kind: str) -> None:
    """Refuse an image whose header claims too many pixels, before memory is allocated for them."""
    width, height = size
    if width * height > MAX_ROI_PX:
        raise SourceError(path, f"claims {width} x {height} px, over the bound of {MAX_ROI_PX} px", "cut the ROI")
    size_bytes = path.stat().st_size
    if width * height > _PX_A_BYTE[kind] * size_bytes:
        what = f"claims {width} x {height} px, which {size_bytes} bytes cannot hold"
        raise SourceError(path, what, "download or export it again")


@contextmanager
def _opened(path: Path, *, pixels: bool = False) -> Generator[Image.Image]:
    """Open a file; if its pixels are wanted, check first that its bytes are undamaged."""
    bounds = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    try:
        # `_check_claim` replaces Pillow's bound of pixels, which is smaller than a large ROI. Its bound of metadata is
        # smaller than the color profile of a slide.
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MAX_METADATA_BYTES
        with (
            _failures(path),
            _metadata_warnings(path),
            _FileReader(path) as file,
            Image.open(file, formats=_FORMATS) as image,
        ):
            _check_claim(path, image.size, str(image.format))
            _check_single(path, image, file)
            if pixels:
                _check_bytes(path, image)
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = bounds


def _check_single(path: Path, image: Image.Image, file: _FileReader) -> None:
    """Refuse a file of several pictures. The second picture of an MPO is a preview, or made for another eye."""
    if isinstance(image, TiffImageFile):
        content = tiff_content(file)
        if content is not None:
            check_pages(path, content)
    elif image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
        what = f"is an animation of {getattr(image, 'n_frames', 1)} pictures"
        raise SourceError(path, what, "save the one that is meant in its own file")


@contextmanager
def _metadata_warnings(path: Path) -> Generator[None]:
    """Log what Pillow warns of. The pixels are all there, unless it skipped the palette, which then is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = [str(warning.message).strip() for warning in caught]
    for text in texts:
        if re.search(rf"\btag {_COLOR_MAP}\b", text):
            raise SourceError(path, f"is damaged ({text})", "download or export it again")
    if texts:
        logger.warning("%s: its metadata is odd (%s); its pixels are read", path, texts[0])


@contextmanager
def _failures(path: Path) -> Generator[None]:
    """Turn every failure of reading a file into a `SourceError` that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(path, "is not there", "check the path") from error
    except PermissionError as error:
        raise SourceError(path, "cannot be read", "check its permissions") from error
    except UnidentifiedImageError as error:
        raise SourceError(path, *_unread(path)) from error
    except MemoryError as error:
        raise SourceError(path, "needs more memory than is available", "cut the ROI") from error
    except SourceError:
        raise
    except Exception as error:
        # A damaged file makes Pillow raise OSError, SyntaxError, zlib.error, TypeError and more.
        raise SourceError(path, f"is damaged ({error})", "download or export it again") from error


def _unread(path: Path) -> tuple[str, str]:
    """Say what a file is that Pillow does not open, and what to do."""
    with _FileReader(path) as file:
        content = tiff_content(file)
    if content is None:
        return "is not a PNG, JPEG or TIFF image", "download or export it again"
    if content.pillow_reads_codes and content.compression in COMPRESSION_INFO:
        return "is damaged (its tags contradict each other)", "download or export it again"
    kinds = {1: "unsigned integers", 2: "signed integers", 3: "floating-point numbers"}
    kind = kinds.get(content.sample_format, "values of an unknown kind")
    compression = COMPRESSION_INFO.get(content.compression, content.lossy or f"number {content.compression}")
    what = f"is a TIFF of {content.samples} x {content.bits}-bit {kind} (compression: {compression})"
    return f"{what}, which cannot be read", "save it as 8-bit PNG"
