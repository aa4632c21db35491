"""Inspect a TIFF before its pixels are decoded: its content, its pages, and whether Pillow can read its values.

Pillow decodes most files. But it swaps the bytes of compressed signed big-endian values, and it does not support 64-bit
integers, so tifffile decodes such masks. Arrays are H, W.
Source: TIFF 6.0, sections 2, 8 and 12; ImageJ's `FileInfo` for its stacks.
"""

from __future__ import annotations

import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from schemas.errors import SourceError
from schemas.picture.orientation import TAG as ORIENTATION
from schemas.picture.orientation import UPRIGHT, turned_array, turned_size, valid_orientation

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0")
"""Starts of little-endian and big-endian files, and of little-endian BigTIFFs; Pillow reads no other BigTIFF."""

_BIG_TIFF = 43

# Tags, and one value of the tag 254.
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_DESCRIPTION, _SAMPLES, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _SAMPLE_FORMAT = 270, 277, 282, 283, 296, 339
_REDUCED = 1

_UNCOMPRESSED, _PALETTE = 1, 3
_UNSIGNED, _SIGNED = 1, 2
_UNIT_UM = {2: 25_400.0, 3: 10_000.0}
"""Micrometers of an inch and of a centimeter, by the number of the unit."""
_KINDS = {_UNSIGNED: "unsigned integers", _SIGNED: "signed integers", 3: "floating-point numbers"}

_LOSSY = {
    **dict.fromkeys((6, 7, 33007, 34892), "JPEG"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((34927, 50001), "WebP"),
    **dict.fromkeys((22610, 34934), "JPEG XR"),
}
"""Names of the compressions that may lose details, by their number in the tag 259."""

_NUMBERS = {3: "H", 4: "L"}
"""`struct` codes of the tag types whose value is one number inside the tag's own entry."""

MAX_PAGES = 10_000
"""Maximum number of pages that are counted. Counting also ends if the pages of a damaged file form a loop."""


@dataclass(frozen=True)
class TiffPage:
    """One page of a TIFF.

    Attributes:
        size: Width and height in pixels, as stored.
        reduced: Whether the page says that it is a smaller version of another.
    """

    size: tuple[int, int]
    reduced: bool


@dataclass(frozen=True)
class TiffContent:
    """What a TIFF holds.

    Attributes:
        pages: All pages, in the order of the file.
        bits: Bits of a sample of the first page.
        samples: Samples of a pixel of the first page.
        sample_format: 1 for unsigned integers, 2 for signed ones, 3 for floats.
        compression: Number of the compression, 1 for none.
        photometric: How values are shown: 0 white is zero, 1 black is zero, 2 RGB, 3 palette.
        orientation: Number of the orientation tag; 1 if rows and columns are as shown.
        description: The text of the first page; programs keep notes of their own there.
        mpp_um: Micrometers per pixel of the first page, the mean of both axes; None if its tags state none.
    """

    pages: tuple[TiffPage, ...]
    bits: int
    samples: int
    sample_format: int
    compression: int
    photometric: int
    orientation: int
    description: str
    mpp_um: float | None = None

    @property
    def kind(self) -> str:
        """What a sample is, in words."""
        return _KINDS.get(self.sample_format, "values of an unknown kind")

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height in pixels after turning by the orientation tag."""
        return turned_size(self.pages[0].size, self.orientation)

    @property
    def lossy(self) -> str:
        """Name of a compression that may change values; empty for others."""
        return _LOSSY.get(self.compression, "")

    @property
    def pillow_reads_codes(self) -> bool:
        """Whether Pillow returns the stored integers of one sample per pixel."""
        return self.sample_format == _UNSIGNED and self.bits <= 16


def tiff_content(file: IO[bytes]) -> TiffContent | None:
    """Read the tags of all pages; no pixel is decoded.

    Args:
        file: The open file; its position is restored.

    Returns:
        What the file holds; None if it is not a TIFF, or its first page cannot be read.
    """
    start = file.tell()
    file.seek(0)
    # Pillow warns again when it opens the file, and then the warning is logged.
    try:
        with warnings.catch_warnings(action="ignore"):
            return _content(file)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error):
        # Pillow reports the damage when it opens the file.
        return None
    finally:
        file.seek(start)


def _content(file: IO[bytes]) -> TiffContent | None:
    header = file.read(8)
    if header[:4] not in _MAGIC:
        return None
    if header[2] == _BIG_TIFF:
        header += file.read(8)
    first = ImageFileDirectory_v2(header)
    place, pages, seen = first.next, list[TiffPage](), set[int]()
    while place and place not in seen and len(pages) < MAX_PAGES:
        seen.add(place)
        file.seek(place)
        if pages:
            page, place = _later_page(file, header)
        else:
            first.load(file)
            size = _number(first, _WIDTH, 0), _number(first, _HEIGHT, 0)
            page, place = TiffPage(size, bool(_number(first, _SUBFILE, 0) & _REDUCED)), first.next
        pages.append(page)
    if not pages:
        return None
    return TiffContent(
        pages=tuple(pages),
        bits=_number(first, _BITS, 1),
        samples=_number(first, _SAMPLES, 1),
        sample_format=_number(first, _SAMPLE_FORMAT, _UNSIGNED),
        compression=_number(first, _COMPRESSION, _UNCOMPRESSED),
        photometric=_number(first, _PHOTOMETRIC, 1),
        orientation=valid_orientation(_number(first, ORIENTATION, UPRIGHT)),
        description=str(first.get(_DESCRIPTION, "")),
        mpp_um=_mpp_um(first),
    )


def _later_page(file: IO[bytes], header: bytes) -> tuple[TiffPage, int]:
    """Read the size of a page after the first, and the place of the next one.

    Pillow's class would read all tags of every page, and in a hostile file many pages can point to the same megabytes
    of tags.
    """
    order = "<>"[header[:2] == b"MM"]
    forms = ("Q", "HHQ8s", "Q") if header[2] == _BIG_TIFF else ("H", "HHL4s", "L")
    count_form, entry_form, place_form = (struct.Struct(order + form) for form in forms)
    (count,) = count_form.unpack(file.read(count_form.size))
    values: dict[int, int] = {}
    for tag, kind, _, value in entry_form.iter_unpack(file.read(count * entry_form.size)):
        if kind in _NUMBERS:
            (values[tag],) = struct.unpack_from(order + _NUMBERS[kind], value)
    (following,) = place_form.unpack(file.read(place_form.size))
    page = TiffPage((values.get(_WIDTH, 0), values.get(_HEIGHT, 0)), bool(values.get(_SUBFILE, 0) & _REDUCED))
    return page, following


def check_pages(path: Path, content: TiffContent) -> None:
    """Refuse a file whose first page is not the whole picture.

    A pyramid is accepted: its first page is the largest, and every other page is a smaller version of it.

    Raises:
        SourceError: The file has several pictures, or a smaller version first.
    """
    stack = re.search(r"^images=(\d+)", content.description, re.MULTILINE)
    if content.description.startswith("ImageJ=") and stack and int(stack[1]) > 1:
        raise SourceError(path, f"is an ImageJ stack of {stack[1]} images", "save the one you need in its own file")
    first, *others = content.pages
    if first.reduced and others:
        what = f"has {len(content.pages)} pages, and the first is a smaller version of another"
        raise SourceError(path, what, "save the full resolution in its own file")
    if not all(page.reduced or _is_smaller(page.size, first.size) for page in others):
        what = f"has {len(content.pages)} pages, and only the first would be read"
        raise SourceError(path, what, "save the one you need in its own file")


def read_tiff_codes(path: Path, file: IO[bytes], content: TiffContent) -> NDArray[Any]:
    """Decode the integers of a mask that Pillow does not read.

    Args:
        path: The file's path, for messages.
        file: The open file.
        content: Its tags.

    Returns:
        Integers of 8 to 64 bits, (H, W), turned upright by the orientation tag.

    Raises:
        SourceError: The values are not integers, or the compression is unknown.
    """
    if content.sample_format not in (_UNSIGNED, _SIGNED):
        what = f"holds {content.kind} of {content.bits} bits, but a mask has integers"
        raise SourceError(path, what, "save it as unsigned 8- or 16-bit integers")
    if content.samples != 1 or content.photometric == _PALETTE:
        what = f"has {content.samples} samples of {content.bits} bits per pixel"
        what += ", but a mask has one class code per pixel"
        raise SourceError(path, what, "save it palettized or gray, with the code as pixel value")
    with tifffile.TiffFile(file) as tiff:
        page = cast("Any", tiff.pages.first)
        if not all(page.dataoffsets) or not all(page.databytecounts):
            raise SourceError(path, "lacks parts of its pixels", "download or export it again")
        try:
            values = cast("NDArray[Any]", page.asarray())
        except (ValueError, KeyError) as error:
            if "imagecodecs" not in str(error):
                raise
            sign = "signed " if content.sample_format == _SIGNED else ""
            what = f"holds {sign}{content.bits}-bit integers in a compression that needs the package imagecodecs"
            raise SourceError(path, what, "run `pip install imagecodecs`, or save it uncompressed") from error
    return np.ascontiguousarray(turned_array(values, content.orientation))


def _mpp_um(tags: Any) -> float | None:
    try:
        unit_um = _UNIT_UM.get(_number(tags, _RESOLUTION_UNIT, 2), 0.0)
        per_unit = [float(tags.get(tag, 0)) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
        found = sum(unit_um / value for value in per_unit) / 2
    except (TypeError, ValueError, ArithmeticError, struct.error):
        # Without a resolution, or with a damaged one, the pixels can still be read.
        return None
    return found if 0 < found < float("inf") else None


def _number(tags: Any, tag: int, default: int) -> int:
    value: Any = tags.get(tag, default)
    return int(cast("Any", value)[0] if isinstance(value, tuple) else value)


def _is_smaller(size: tuple[int, int], first: tuple[int, int]) -> bool:
    """Whether a page can be a level of a pyramid: smaller, and of the same shape within one pixel."""
    factor = first[0] / max(size[0], 1)
    return factor > 1 and abs(first[1] / factor - size[1]) <= 1
