"""The old import path of `prep.source.decode`."""

from prep.source.decode import image_header, read_image, read_mask

__all__ = ["image_header", "read_image", "read_mask"]
