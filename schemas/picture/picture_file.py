"""Open an image file and check it, before any pixel is decoded: its format, size, checksums, and number of pictures."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import COMPRESSION_INFO

from schemas.errors import SourceError
from schemas.limits import MAX_METADATA_BYTES, MAX_ROI_PX
from schemas.picture.orientation import orientation_of
from schemas.picture.tiff import TiffContent, check_pages, tiff_content

logger = logging.getLogger(__name__)

_FORMATS = ("PNG", "JPEG", "TIFF")
"""The formats that are read; the name of the file does not matter. For some other formats, Pillow runs external
programs such as Ghostscript."""

_JPEG_PX = 1024

_PX_A_BYTE = {"PNG": 8 * 1032, "JPEG": _JPEG_PX, "MPO": _JPEG_PX, "TIFF": 1 << 17}
"""Maximum pixels that one byte of a file can hold, by Pillow's name of the format; MPO is a JPEG followed by others.

Deflate expands one byte to at most 1032 bytes, and a pixel of a PNG takes at least one bit. In a JPEG a block of 64
pixels takes at least two bits. In a TIFF with Group 4 compression a blank line takes one bit.
"""


class FileReader(io.BufferedReader):
    """Reads a file, and never allocates more memory than the file has bytes, even if a chunk in it claims more."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes; the rest of the file unless given."""
        # Ask for a little more than is left, so that a failing device reports its error instead of an end of file.
        left = max(self._end - self.tell(), 4096)
        return super().read(left if size is None or size < 0 else min(size, left))


@dataclass(frozen=True)
class PictureFile:
    """An open image file whose size and number of pictures are checked.

    Attributes:
        path: Its path.
        file: The open file.
        tiff: The tags of a TIFF; None for other formats.
    """

    path: Path
    file: FileReader
    tiff: TiffContent | None

    @contextmanager
    def image(self, *, pixels: bool) -> Generator[Image.Image]:
        """Open the picture with Pillow.

        Args:
            pixels: Whether the caller needs the pixels; if so, the checksums of a PNG are checked first.

        Yields:
            The image, whose pixels are not decoded yet.

        Raises:
            SourceError: The file is damaged, claims too many pixels, holds several pictures, or is not a picture.
        """
        bounds = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        try:
            # Pillow's limit on pixels is smaller than a large ROI, so `check_claim` replaces it. Pillow's limit on
            # metadata is smaller than the color profile of a slide.
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MAX_METADATA_BYTES
            with _metadata_warnings(self.path), Image.open(self.file, formats=_FORMATS) as image:
                self.check_claim(image.size, str(image.format))
                self._check_single(image)
                if pixels and image.format == "PNG":
                    self._check_bytes()
                yield image
        except UnidentifiedImageError as error:
            raise SourceError(self.path, *_what_it_is(self.tiff)) from error
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = bounds

    def orientation(self, image: Image.Image) -> int:
        """Return the number of the picture's orientation tag, 1 to 8."""
        return self.tiff.orientation if self.tiff is not None else orientation_of(image, self.file)

    def check_claim(self, size: tuple[int, int], kind: str) -> None:
        """Refuse an image whose header claims too many pixels, before memory is allocated for them.

        Args:
            size: Width and height in pixels.
            kind: Pillow's name of the format.
        """
        width, height = size
        if width * height > MAX_ROI_PX:
            what = f"claims {width} x {height} px, more than the maximum of {MAX_ROI_PX} px"
            raise SourceError(self.path, what, "cut the ROI into smaller ones")
        size_bytes = self.path.stat().st_size
        if width * height > _PX_A_BYTE[kind] * size_bytes:
            what = f"claims {width} x {height} px, which {size_bytes} bytes cannot hold"
            raise SourceError(self.path, what, "download or export it again")

    def _check_single(self, image: Image.Image) -> None:
        """Refuse a file with several pictures, except an MPO: its second picture is a preview or for the other eye."""
        count: int = getattr(image, "n_frames", 1) if image.format == "PNG" else 1
        if self.tiff is not None:
            check_pages(self.path, self.tiff)
        elif image.format == "TIFF":
            raise SourceError(self.path, "is damaged (its tags cannot be read)", "download or export it again")
        elif count > 1:
            what = f"is an animation of {count} pictures"
            raise SourceError(self.path, what, "save the one you need in its own file")

    def _check_bytes(self) -> None:
        """Check the checksums of a PNG's chunks. Pillow skips them when it decodes, and would return wrong pixels."""
        with FileReader(self.path) as file, Image.open(file, formats=("PNG",)) as twin:
            twin.verify()


@contextmanager
def open_picture(path: Path) -> Generator[PictureFile]:
    """Open an image file; every failure in the `with` block becomes an error that names the file.

    Raises:
        SourceError: The file is absent, cannot be read, or is damaged.
    """
    try:
        _check_kind(path)
        with FileReader(path) as file:
            yield PictureFile(path, file, tiff_content(file))
    except FileNotFoundError as error:
        raise SourceError(path, "does not exist", "check the path") from error
    except PermissionError as error:
        raise SourceError(path, "cannot be read", "check its permissions") from error
    except MemoryError as error:
        raise SourceError(path, "needs more memory than is available", "cut the ROI into smaller ones") from error
    except SourceError:
        raise
    except Exception as error:
        # A damaged file makes Pillow raise OSError, SyntaxError, zlib.error, TypeError and more.
        raise SourceError(path, f"is damaged ({error})", "download or export it again") from error


def _check_kind(path: Path) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():
        # To open a pipe would wait for ever.
        raise SourceError(path, "is a pipe or a device, not a file", "move it away")


@contextmanager
def _metadata_warnings(path: Path) -> Generator[None]:
    """Log Pillow's warnings about metadata: all pixels are there. A file whose palette is skipped cannot be opened."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if caught:
        logger.warning("%s: its metadata is faulty (%s); its pixels are read", path, str(caught[0].message).strip())


def _what_it_is(tiff: TiffContent | None) -> tuple[str, str]:
    """Describe a file that Pillow cannot open, and say what to do about it."""
    if tiff is None:
        return "is not a PNG, JPEG or TIFF image", "download or export it again"
    if tiff.pillow_reads_codes and tiff.compression in COMPRESSION_INFO:
        return "is damaged (its tags contradict each other)", "download or export it again"
    compression = COMPRESSION_INFO.get(tiff.compression, tiff.lossy or f"number {tiff.compression}")
    what = f"is a TIFF of {tiff.samples} x {tiff.bits}-bit {tiff.kind} (compression: {compression})"
    return f"{what}, which cannot be read", "save it as 8-bit PNG"
