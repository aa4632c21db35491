"""Images whose pixel values are class codes, as the source's masks are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.classes import ClassInfo
from schemas.store.store import Store

BACKGROUND_CODE = 0
"""Pixel value where no object is predicted."""


@dataclass(frozen=True)
class Roi:
    """One ROI that tiles were cut from.

    Attributes:
        width_px: Width in source pixels.
        height_px: Height in source pixels.
        palette_hex: Palette of the source's mask as in the manifest: red, green and blue of each index in hexadecimal.
            An empty one stands for the colors of the classes.
    """

    width_px: int
    height_px: int
    palette_hex: str = ""


@dataclass(frozen=True)
class ClassImages:
    """Makes images of class codes for a set of ROIs.

    Attributes:
        classes: Code, name and color of every class that is predicted.
        rois: The ROIs by `frame_id`.
    """

    classes: Sequence[ClassInfo]
    rois: Mapping[str, Roi]

    @classmethod
    def from_store(cls, store: Store) -> ClassImages:
        """Take classes and ROIs from a store."""
        sources = store.manifest.sources
        rois = {source.frame_id: Roi(source.width_px, source.height_px, source.palette) for source in sources}
        return cls(store.manifest.classes, rois)

    def image(self, codes: NDArray[np.uint8 | np.uint16], frame_id: str) -> Image.Image:
        """Make an image whose pixel values are class codes.

        Args:
            codes: uint8 (H, W) gives an image with a palette; uint16 (H, W) gives 16-bit gray, which has no palette.
            frame_id: The ROI, whose palette is used.
        """
        image = Image.fromarray(codes)
        if codes.dtype == np.uint8:
            image.putpalette(self._palette(frame_id))
        return image

    def _palette(self, frame_id: str) -> bytes:
        palette_hex = self.rois[frame_id].palette_hex
        if palette_hex:
            return bytes.fromhex(palette_hex)
        colors = {info.code: info.color for info in self.classes}
        return bytes(channel for code in range(256) for channel in colors.get(code, (0, 0, 0)))
