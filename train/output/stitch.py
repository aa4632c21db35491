"""Put the masks of tiles back into their ROI, and write them as the source's masks are: palettized, with its codes.

Axes: C classes of a ROI, H and W its pixels, O objects of a tile, S its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import StoreError
from schemas.manifest import SourceRecord
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.loss.pixel_terms import upsample
from train.model.predictor import OBJECTS_PER_PASS
from train.output.model_folders import ModelFolders
from train.score.answers import TileAnswer

BACKGROUND_CODE = 0

MAX_CANVAS_BYTES = 1 << 35
"""Of one ROI while tiles are blended: half a gigapixel with thirty classes."""

_CERTAIN = 20.0
"""Logit of a pixel of a baseline's mask, which has no logits."""


class RoiStitcher:
    """Blends answers into ROIs; call it with answers in the store's order of tiles, then `close`.

    Where tiles overlap, probabilities are averaged with a weight that falls towards a tile's edge. A pixel gets the
    class with the highest probability, or code 0 where none reaches the threshold. One ROI of each model and prompt
    kind is in memory at a time.

    Args:
        store: Says where tiles lie and what the source's palette is.
        out: Folder to write to: `out/MODEL/PROMPT/FRAME.png`.
        thresholds: As in the protocol.
    """

    def __init__(self, store: Store, out: Path, thresholds: Mapping[tuple[str, PromptKind], float]) -> None:
        self.store = store
        self.out = out
        self.thresholds = thresholds
        self._folder_of = ModelFolders()
        self._open: dict[tuple[str, PromptKind], _Canvas] = {}

    def __call__(self, answer: TileAnswer) -> None:
        """Blend one answer in."""
        key = (answer.model, answer.kind)
        canvas = self._open.get(key)
        if canvas is None or canvas.source.frame_id != answer.record.frame_id:
            self._finish(key)
            canvas = self._open[key] = _Canvas(self.store.source(answer.record.frame_id), self._codes())
        canvas.blend(answer, self.thresholds.get(key, 0.0))

    def close(self) -> None:
        """Write what is still open."""
        for key in list(self._open):
            self._finish(key)

    def _codes(self) -> list[int]:
        return [info.code for info in self.store.manifest.classes]

    def _finish(self, key: tuple[str, PromptKind]) -> None:
        canvas = self._open.pop(key, None)
        if canvas is None:
            return
        folder = self.out / self._folder_of(key[0]) / key[1]
        folder.mkdir(parents=True, exist_ok=True)
        colors = {info.code: info.color for info in self.store.manifest.classes}
        palettized(canvas.codes(), canvas.source.palette, colors).save(folder / f"{canvas.source.frame_id}.png")


class _Canvas:
    def __init__(self, source: SourceRecord, codes: list[int]) -> None:
        self.source = source
        self.class_codes = codes
        size_bytes = (len(codes) + 1) * source.height_px * source.width_px * 2
        if size_bytes > MAX_CANVAS_BYTES:
            what = f"takes {size_bytes / 2**30:.0f} GiB for {len(codes)} classes"
            raise StoreError(source.frame_id, what, "leave --stitch out")
        # Half precision: a ROI of 64 megapixels with five classes takes 640 MB.
        self.sums = np.zeros((len(codes), source.height_px, source.width_px), np.float16)
        self.weights = np.zeros((source.height_px, source.width_px), np.float16)

    def blend(self, answer: TileAnswer, threshold: float) -> None:
        record = answer.record
        size = answer.masks.shape[-1]
        left, top = record.origin_xy
        right, bottom = (_end(start, size, factor) for start, factor in zip((left, top), record.scale_xy, strict=True))
        width, height = right - left, bottom - top
        weight = _resized(_taper(size), width, height)
        # A padded tile reaches beyond the ROI.
        rows = slice(top, min(bottom, self.source.height_px))
        columns = slice(left, min(right, self.source.width_px))
        inside = slice(0, rows.stop - top), slice(0, columns.stop - left)
        self.weights[rows, columns] += weight[inside].astype(np.float16)
        for place, code in enumerate(self.class_codes):
            chosen = np.flatnonzero(record.class_ids == code)
            if len(chosen):
                best = _resized(_probability(answer, chosen, threshold), width, height)
                self.sums[place, rows, columns] += (best * weight)[inside].astype(np.float16)

    def codes(self) -> NDArray[np.uint8 | np.uint16]:
        dtype = np.uint8 if max(self.class_codes) < 256 else np.uint16
        best = self.sums.argmax(0)
        shown = np.take_along_axis(self.sums, best[None], 0)[0] > 0.5 * self.weights
        return np.where(shown, np.array(self.class_codes, dtype)[best], dtype(BACKGROUND_CODE))


def palettized(
    codes: NDArray[np.uint8 | np.uint16], palette_hex: str, colors: dict[int, tuple[int, int, int]]
) -> Image.Image:
    """An image whose pixel values are class codes, with the source's palette, or one of class colours without any.

    Args:
        codes: uint8 (H, W); uint16 becomes 16-bit grey, which has no palette.
        palette_hex: The source's, as in the manifest.
        colors: Colour of each code.
    """
    image = Image.fromarray(codes)
    if codes.dtype == np.uint8:
        own = [channel for code in range(256) for channel in colors.get(code, (0, 0, 0))]
        image.putpalette(bytes.fromhex(palette_hex) if palette_hex else bytes(own))
    return image


def _end(start_px: int, size_px: int, factor: float) -> int:
    """Where a tile ends in the ROI: where the next one begins, both rounded alike, so that no gap is between them."""
    return round((round(start_px * factor) + size_px) / factor)


def _probability(answer: TileAnswer, rows: NDArray[np.int64], threshold: float) -> NDArray[np.float32]:
    """The highest of some objects' probabilities at each pixel, (S, S), with the threshold at one half."""
    if answer.prediction is None:
        logits = np.where(answer.masks[rows].any(0), _CERTAIN, -_CERTAIN)
    else:
        size = answer.masks.shape[-1]
        low = answer.prediction.logits[torch.from_numpy(rows).to(answer.prediction.logits.device), None]
        # In parts, since all objects of a tile may be a thousand.
        parts = (upsample(part, size, size).amax((0, 1)) for part in low.split(OBJECTS_PER_PASS))
        logits = torch.stack(list(parts)).amax(0).cpu().numpy() - threshold
    return np.asarray(1 / (1 + np.exp(-logits.clip(-30, 30))), np.float32)


def _taper(size: int) -> NDArray[np.float32]:
    """A weight that is highest in the middle and falls to the edge, (S, S)."""
    place = (np.arange(size) + 0.5) / size
    ramp = np.minimum(place, 1 - place).clip(0.02)
    return np.minimum(ramp[:, None], ramp[None]).astype(np.float32)


def _resized(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    if values.shape == (height, width):
        return values
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
