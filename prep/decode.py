"""The import path of `schemas.picture.decode` before November 2026; kept for existing scripts."""

from schemas.picture.decode import image_header, read_image, read_mask

__all__ = ["image_header", "read_image", "read_mask"]
