"""Put the masks of tiles back into their ROI, as an image of class codes.

Axes: C classes, H and W pixels of a ROI, O objects of a tile, S pixels per side of the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from schemas.errors import StoreError
from schemas.file_names import bounded_name
from schemas.prompt_kinds import PromptKind
from train.loss.pixel_terms import upsample
from train.model.predictor import OBJECTS_PER_PASS
from train.output.class_images import ClassImages
from train.output.class_sums import ClassSums, SumsMemory
from train.output.model_folders import ModelFolders
from train.score.tile_answer import Answer, Question

_CERTAIN = 20.0
"""Logit that stands for a pixel inside a baseline's mask, since a baseline has no logits."""

BAND_ROWS = 512
"""Rows of a ROI whose sums are kept together. Sums take ten times as much memory as codes, so few rows have them."""

_ROUNDED_TO_ZERO = 2.0**-25
"""Half of the smallest positive number in half precision; numbers up to this are rounded to zero."""


class ReceiveRoi(Protocol):
    """Receives a stitched ROI."""

    def __call__(self, model: str, kind: PromptKind, frame_id: str, codes: NDArray[np.uint8 | np.uint16], /) -> None:
        """Receive the class code of each pixel of a ROI, (H, W)."""
        ...


class RoiWriter:
    """Writes stitched ROIs as `OUT/MODEL/PROMPT/FRAME.png`.

    Args:
        images: Makes the PNGs.
        out: The folder to write to.
    """

    def __init__(self, images: ClassImages, out: Path) -> None:
        self.images = images
        self.out = out
        self._folder_of = ModelFolders()

    def __call__(self, model: str, kind: PromptKind, frame_id: str, codes: NDArray[np.uint8 | np.uint16]) -> None:
        """Write one ROI."""
        folder = self.out / self._folder_of(model) / kind
        folder.mkdir(parents=True, exist_ok=True)
        self.images.image(codes, frame_id).save(folder / bounded_name(frame_id, ".png"))


class RoiStitcher:
    """Blends answers into ROIs, and passes each stitched ROI on.

    Call it with all answers of one ROI, row by row as in the store, before those of the next, then `close`.

    Where tiles overlap, probabilities are averaged with a weight that falls toward the edge of a tile. A pixel gets
    the class with the highest probability, or `ClassImages.nothing_code` if no class reaches the threshold. One ROI for
    each model and prompt kind is in memory at a time: its codes, and the sums of the rows that are not finished.

    Args:
        images: Gives the classes and the sizes of the ROIs.
        receive: Receives each stitched ROI.
        origins_xy: Gives the origins of all tiles of a ROI, int (n, 2) as x, y in source pixels. With many classes this
            saves memory where no tiles overlap; None assumes that tiles may overlap anywhere.
    """

    def __init__(
        self,
        images: ClassImages,
        receive: ReceiveRoi,
        origins_xy: Callable[[str], NDArray[np.integer]] | None = None,
    ) -> None:
        self.images = images
        self.receive = receive
        self.origins_xy = origins_xy
        self._open: dict[tuple[str, PromptKind], _Canvas] = {}

    def __call__(self, answer: Answer) -> None:
        """Blend one answer into its ROI."""
        key = (answer.model, answer.question.kind)
        frame_id = answer.question.frame_id
        canvas = self._open.get(key)
        if canvas is None or canvas.frame_id != frame_id:
            self._finish(key)
            origins_xy = self.origins_xy(frame_id).tolist() if self.origins_xy else None
            canvas = self._open[key] = _Canvas(answer.question, self.images, origins_xy)
        canvas.blend(answer)

    def close(self) -> None:
        """Pass on the ROIs that are not finished yet."""
        for key in list(self._open):
            self._finish(key)

    def _finish(self, key: tuple[str, PromptKind]) -> None:
        canvas = self._open.pop(key, None)
        if canvas is not None:
            self.receive(*key, canvas.frame_id, canvas.codes())


class _Band:
    """The weighted sums of class probabilities in some rows of a ROI.

    Args:
        memory: Counts the memory of the ROI's sums.
        rows: The rows.
        width: Width of the ROI in pixels.
        tiles: Left, top, right and bottom of each tile of the ROI, int (n, 4); none assumes that tiles may overlap
            anywhere.
    """

    def __init__(self, memory: SumsMemory, rows: range, width: int, tiles: NDArray[np.int64]) -> None:
        self.rows = rows
        count = np.zeros((len(rows), width), np.uint16)
        reaches = (tiles[:, 1] < rows.stop) & (tiles[:, 3] > rows.start)
        for left, top, right, bottom in tiles[reaches].tolist():
            count[max(top - rows.start, 0) : bottom - rows.start, left:right] += 1
        self.sums = ClassSums(memory, count == 1)
        self.weights = np.zeros(count.shape, np.float16)

    def overlap(self, top: int, height: int) -> tuple[slice, slice]:
        """Return where rows of the ROI lie: within them, and within the band."""
        first, last = max(top, self.rows.start), min(top + height, self.rows.stop)
        return slice(first - top, last - top), slice(first - self.rows.start, last - self.rows.start)

    def codes(self, class_codes: NDArray[np.uint8 | np.uint16], nothing: int) -> NDArray[np.uint8 | np.uint16]:
        """Return the class code of each pixel, (rows, W)."""
        places, sums = self.sums.best()
        return np.where(sums > 0.5 * self.weights, class_codes[places], class_codes.dtype.type(nothing))


class _Canvas:
    """One ROI. Its tiles come row by row, so only the bands that the latest tile reaches hold sums; others hold codes.

    All tiles have the size of the first one.
    """

    def __init__(self, first: Question, images: ClassImages, origins_xy: list[tuple[int, int]] | None) -> None:
        self.frame_id = first.frame_id
        self.images = images
        self.roi = roi = images.rois[first.frame_id]
        self.class_codes = np.array([info.code for info in images.classes], images.dtype)
        tiles = [tile_place(origin_xy, first.size_px, first.scale_xy) for origin_xy in origins_xy or []]
        self._tiles = np.array(tiles, np.int64).reshape(-1, 4)
        self._memory = SumsMemory(first.frame_id)
        self._codes = np.full((roi.height_px, roi.width_px), images.nothing_code, images.dtype)
        self._bands: dict[int, _Band] = {}
        self._finished_rows = 0
        self._started: dict[int, NDArray[np.float32]] = {}

    def blend(self, answer: Answer) -> None:
        """Add the weighted probabilities of one tile, or of some of its objects if others follow.

        Raises:
            StoreError: The tile reaches rows that are finished, because it does not come after the tiles above it; or
                the sums need too much memory.
        """
        question = answer.question
        left, top, right, bottom = tile_place(question.origin_xy, question.size_px, question.scale_xy)
        if top < self._finished_rows:
            what = f"has a tile at row {top} after tiles that lie below it"
            raise StoreError(self.frame_id, what, "build the store again, or leave out --stitch")
        self._finish(top)
        width, height = right - left, bottom - top
        weight = _resized(_taper(question.size_px), width, height)
        # A padded tile reaches beyond the ROI.
        inside = slice(0, min(height, self.roi.height_px - top)), slice(0, min(width, self.roi.width_px - left))
        bands = self._reached(top, top + inside[0].stop)
        for place, probability in self._class_probabilities(answer):
            weighted = (_resized(probability, width, height) * weight)[inside]
            # NumPy would round these numbers to zero too, but that takes ten times as long for each of them.
            weighted[weighted <= _ROUNDED_TO_ZERO] = 0
            halves = weighted.astype(np.float16)
            for band in bands:
                own, rows = band.overlap(top, len(halves))
                band.sums.add(place, halves[own], rows.start, left)
        if not question.more_follow:
            weight = weight[inside].astype(np.float16)
            for band in bands:
                own, rows = band.overlap(top, len(weight))
                band.weights[rows, left : left + weight.shape[1]] += weight[own]

    def _reached(self, top: int, bottom: int) -> list[_Band]:
        """Return the bands that some rows of the ROI reach."""
        numbers = range(top // BAND_ROWS, -(-bottom // BAND_ROWS))
        for number in numbers:
            if number not in self._bands:
                rows = range(number * BAND_ROWS, min((number + 1) * BAND_ROWS, self.roi.height_px))
                self._bands[number] = _Band(self._memory, rows, self.roi.width_px, self._tiles)
        return [self._bands[number] for number in numbers]

    def _finish(self, top: int) -> None:
        """Turn the sums of all bands above a row into codes."""
        for number in [number for number, band in self._bands.items() if band.rows.stop <= top]:
            band = self._bands.pop(number)
            rows = slice(band.rows.start, band.rows.stop)
            self._codes[rows] = band.codes(self.class_codes, self.images.nothing_code)
            self._memory.give_back(band.sums.size_bytes)
            self._finished_rows = max(self._finished_rows, band.rows.stop)

    def codes(self) -> NDArray[np.uint8 | np.uint16]:
        """Return the class code of each pixel, (H, W)."""
        self._finish(self.roi.height_px)
        return self._codes

    def _class_probabilities(self, answer: Answer) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield position and highest probability, (S, S), of each class whose objects in the tile are complete."""
        class_ids = answer.question.class_ids
        for place, code in enumerate(self.class_codes):
            chosen = np.flatnonzero(class_ids == code)
            parts = [self._started.pop(place)] if place in self._started else []
            if len(chosen):
                parts.append(_probability(answer, chosen))
            if not parts:
                continue
            probability = np.maximum.reduce(parts)
            if answer.question.more_follow and code == class_ids[-1]:
                self._started[place] = probability
            else:
                yield place, probability


def tile_place(origin_xy: tuple[int, int], size_px: int, scale_xy: tuple[float, float]) -> tuple[int, int, int, int]:
    """Return where a tile lies in its ROI: left, top, right and bottom (exclusive) in source pixels.

    Args:
        origin_xy: x, y of the tile's top-left pixel in source pixels.
        size_px: Side of the tile in tile pixels.
        scale_xy: Tile pixels for each source pixel along x and y.
    """
    (left, top), (across, down) = origin_xy, scale_xy
    return left, top, _end(left, size_px, across), _end(top, size_px, down)


def _end(start_px: int, size_px: int, scale: float) -> int:
    """Return where a tile ends in the ROI, in source pixels.

    The next tile begins at the same place. Both are rounded in the same way, so there is no gap between the tiles.
    """
    return round((round(start_px * scale) + size_px) / scale)


def _probability(answer: Answer, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the highest probability among some objects at each pixel, (S, S).

    A logit at the threshold gives a probability of one half.
    """
    if answer.prediction is None:
        logits = np.where(answer.masks[rows].any(0), _CERTAIN, -_CERTAIN)
    else:
        size = answer.masks.shape[-1]
        low = answer.prediction.logits[torch.from_numpy(rows).to(answer.prediction.logits.device), None]
        # Upsample in parts to save memory, because a tile may have a thousand objects.
        parts = (upsample(part, size, size).amax((0, 1)) for part in low.split(OBJECTS_PER_PASS))
        logits = torch.stack(list(parts)).amax(0).cpu().numpy() - answer.threshold
    return np.asarray(1 / (1 + np.exp(-logits.clip(-30, 30))), np.float32)


def _taper(size: int) -> NDArray[np.float32]:
    """Return a weight that is highest in the middle and falls toward the edge, (S, S)."""
    place = (np.arange(size) + 0.5) / size
    ramp = np.minimum(place, 1 - place).clip(0.02)
    return np.minimum(ramp[:, None], ramp[None]).astype(np.float32)


def _resized(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Resize an array to (height, width) by linear interpolation."""
    if values.shape == (height, width):
        return values
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
