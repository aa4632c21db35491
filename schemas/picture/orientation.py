"""Apply the orientation tag of an image file, which tells viewers how to rotate or flip the image.

Pillow applies the tag of a TIFF itself when it decodes the file. Arrays are H, W.
Source: TIFF 6.0, page 36; EXIF has the same tag with the same numbers.
"""

from __future__ import annotations

from typing import IO, Any

from numpy.typing import NDArray
from PIL import Image

TAG = 274
UPRIGHT = 1
SIDEWAYS = 5
"""Orientations with this number or a higher one swap rows and columns."""

_PILLOW_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The Pillow method that turns an image upright, by the number in its tag."""


def valid_orientation(value: object) -> int:
    """Return the number in an orientation tag, 1 to 8; any other value counts as upright."""
    return value if isinstance(value, int) and (value == UPRIGHT or value in _PILLOW_METHODS) else UPRIGHT


def orientation_of(image: Image.Image, file: IO[bytes]) -> int:
    """Return the orientation in the EXIF data of a PNG or JPEG, 1 to 8; no pixel is decoded.

    Args:
        image: The opened image.
        file: The file that it was opened from; its position is restored.
    """
    if image.format == "PNG":
        # Pillow would decode all pixels to look for an EXIF chunk after them.
        exif = Image.Exif()
        exif.load(_png_exif(file))
    else:
        exif = image.getexif()
    return valid_orientation(exif.get(TAG))


def turned_image(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image turned upright by its orientation."""
    return image if orientation == UPRIGHT else image.transpose(_PILLOW_METHODS[orientation])


def turned_array(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of a stored array (H, W) turned upright by its orientation."""
    if orientation >= SIDEWAYS:
        values = values.swapaxes(0, 1)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return values[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the width and height in pixels of an image after it is turned upright."""
    return (size[1], size[0]) if orientation >= SIDEWAYS else size


def _png_exif(file: IO[bytes]) -> bytes:
    """Return the content of the chunk `eXIf`; empty without one."""
    start = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return file.read(length)
            file.seek(length + 4, 1)
        return b""
    finally:
        file.seek(start)
