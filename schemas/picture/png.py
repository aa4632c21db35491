"""Decode PNG images of 8-bit RGB with kornia-rs, whose decoder is written in Rust and three times as fast as Pillow.

Arrays are H, W.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.picture.picture_file import PictureFile


def rgb_pixels(picture: PictureFile, image: Image.Image) -> NDArray[np.uint8] | None:
    """Decode the stored pixels of a PNG of 8-bit RGB that is not interlaced and has no transparent color.

    Pillow must have opened the image with `pixels=True`, which checks its size and the CRC of each chunk. The caller
    must have refused more than 8 bits. This decoder does not compare the second checksum, Adler-32, because the CRCs
    cover the same pixels.

    Args:
        picture: The open file; its position is restored.
        image: The image that Pillow opened from it.

    Returns:
        uint8 (H, W, 3), or None for a picture of another kind and for one that this decoder refuses. Pillow then reads
        it, or says what is wrong.
    """
    if image.format != "PNG" or image.mode != "RGB" or image.info.keys() & {"transparency", "interlace"}:
        return None
    start = picture.file.tell()
    try:
        picture.file.seek(0)
        content = picture.file.read()
    finally:
        picture.file.seek(start)
    import kornia_rs

    try:
        return kornia_rs.io.decode_image_png_u8(content, (image.height, image.width), "rgb")
    except Exception:
        # kornia-rs has no exception of its own. Pillow accepts some files that this decoder refuses.
        return None
