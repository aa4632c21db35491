"""Make images whose pixel values are class codes, like the masks of the source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.classes import ClassInfo
from schemas.store.store import Store

_CODES = 256
"""Number of values that an image with a palette can hold."""


@dataclass(frozen=True)
class Roi:
    """One ROI that tiles were cut from.

    Attributes:
        width_px: Width in source pixels.
        height_px: Height in source pixels.
        palette_hex: Palette of the source's mask as in the manifest: red, green and blue of each index in hexadecimal.
            If it is empty, the colors of the classes are used.
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

    @property
    def nothing_code(self) -> int:
        """Pixel value where no object is predicted: 0, or if that is a class, the highest free 8-bit or 16-bit value.

        Pixels of a class with the code 0 must differ from pixels without a class.
        """
        taken = {info.code for info in self.classes}
        return next(code for code in (0, *range(_CODES - 1, 0, -1), *range(65535, _CODES - 1, -1)) if code not in taken)

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """The smallest type that holds all codes."""
        highest = max(self.nothing_code, *(info.code for info in self.classes))
        return np.uint8 if highest < _CODES else np.uint16

    def image(self, codes: NDArray[np.uint8 | np.uint16], frame_id: str) -> Image.Image:
        """Make an image whose pixel values are class codes.

        Args:
            codes: uint8 (H, W) gives an image with a palette; uint16 (H, W) gives 16-bit gray, which has no palette.
            frame_id: The ROI, whose palette is used.
        """
        image = Image.fromarray(codes)
        if codes.dtype == np.uint8:
            image.putpalette(self._palette(frame_id, int(codes.max(initial=0))))
        return image

    def write_codes(self, folder: Path) -> None:
        """Write `classes.json`: the code of each class, and `nothing`, the value of pixels without a mask."""
        classes = [{"code": info.code, "name": info.name} for info in self.classes]
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"nothing": self.nothing_code, "classes": classes}, indent=1)
        (folder / "classes.json").write_text(f"{text}\n", encoding="utf-8")

    def _palette(self, frame_id: str, highest: int) -> bytes:
        """Return the palette of the source's mask; if a code is beyond it, append the colors of the classes up to 256.

        If the palette were too short, the PNG writer would store fewer bits per pixel and cut off the higher codes.
        """
        colors = {info.code: info.color for info in self.classes}
        own = bytes.fromhex(self.rois[frame_id].palette_hex)
        every = bytes(channel for code in range(_CODES) for channel in colors.get(code, (0, 0, 0)))
        return own if highest < len(own) // 3 else own + every[len(own) :]
