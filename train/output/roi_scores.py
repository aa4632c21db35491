"""Score each stitched ROI as one segmentation, with one score for each class.

The mean is taken first over the ROIs of a patient, then over patients, then over classes. So each ROI of a patient has
equal weight.

Axes: H and W pixels of a ROI, n scores.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.manifest import Manifest
from schemas.prompt_kinds import PromptKind
from schemas.record import Record
from schemas.store.store import Store
from train.output.class_images import ClassImages
from train.output.stitch import ReceiveRoi, RoiStitcher, tile_place
from train.score.metrics import score_masks
from train.score.surface_dice import TileOutlines
from train.score.tile_answer import ScoredAnswer
from train.statistics.estimate import class_means


@dataclass(frozen=True)
class RoiScore:
    """The score of one class in one ROI.

    Attributes:
        model: Name of the model or baseline.
        prompt: The prompt kind.
        frame_id: Name of the ROI.
        patient: Patient of the ROI.
        class_id: Code of the class.
        area_px: Number of true pixels of the class that are scored, in source pixels.
        dice: Dice of the class in the ROI.
        surface_dice: Surface Dice at the tolerance; NaN without a resolution or tolerance.
    """

    model: str
    prompt: PromptKind
    frame_id: str
    patient: str
    class_id: int
    area_px: int
    dice: float
    surface_dice: float


class RoiScorer:
    """Stitches the answers of each ROI, passes the stitched ROI on, and scores it.

    Call it with all answers of one ROI before those of the next, then `close`. Pixels of tiles without an object are
    not scored, because no model is asked about them.

    Args:
        store: The store with the truth.
        tolerance_um: Tolerance of surface Dice in micrometers; None leaves it out.
        receive: Receives each stitched ROI, for example to write it.

    Attributes:
        scores: The scores of the ROIs that are finished.
    """

    def __init__(self, store: Store, tolerance_um: float | None, receive: ReceiveRoi) -> None:
        self.scores: list[RoiScore] = []
        self._store = store
        self._tolerance_um = tolerance_um
        self._receive = receive
        self._images = ClassImages.from_store(store)
        self._stitcher = RoiStitcher(self._images, self._score, origins_of(store))
        self._truth: _Truth | None = None

    def __call__(self, scored: ScoredAnswer) -> None:
        """Blend one answer into its ROI."""
        record = scored.record
        if self._truth is None or self._truth.frame_id != record.frame_id:
            self._stitcher.close()
            mpp_um = self._store.source(record.frame_id).mpp_um
            self._truth = _Truth(record, self._store.manifest, self._images, mpp_um, self._tolerance_um)
        self._truth.add(record)
        self._stitcher(scored.answer)

    def close(self) -> None:
        """Score the last ROI."""
        self._stitcher.close()

    def summary(self) -> dict[str, Any]:
        """Return `{MODEL: {PROMPT: {"class_mean": {...}, "classes": {NAME: {...}}, "rois": NUMBER}}}`."""
        names = {info.code: info.name for info in self._store.manifest.classes}
        groups: dict[str, dict[str, list[RoiScore]]] = {}
        for score in self.scores:
            groups.setdefault(score.model, {}).setdefault(score.prompt, []).append(score)
        return {m: {kind: _means(scores, names) for kind, scores in kinds.items()} for m, kinds in groups.items()}

    def write(self, path: Path) -> None:
        """Write the scores as CSV, one line for each ROI and class."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(RoiScore)])
            writer.writerows([astuple(score) for score in self.scores])

    def _score(self, model: str, kind: PromptKind, frame_id: str, codes: NDArray[np.uint8 | np.uint16]) -> None:
        self._receive(model, kind, frame_id, codes)
        truth = self._truth
        assert truth is not None
        present = {*np.unique(truth.codes[~truth.ignore]).tolist(), *np.unique(codes[~truth.ignore]).tolist()}
        for code in (info.code for info in self._images.classes if info.code in present):
            own, predicted = truth.codes == code, codes == code
            found = score_masks(predicted[None], own[None], truth.ignore, truth.outlines)
            area_px = int(np.count_nonzero(own & ~truth.ignore))
            values = float(found.dice[0]), float(found.surface_dice[0])
            self.scores.append(RoiScore(model, kind, frame_id, truth.patient, code, area_px, *values))


def origins_of(store: Store) -> Callable[[str], NDArray[np.int32]]:
    """Return a function that gives the origins of all tiles of a ROI, int32 (n, 2) as x, y in source pixels."""
    return lambda frame_id: store.column("tiles/origin_xy")[store.column("tiles/frame_id") == frame_id]


class _Truth:
    """The true classes of one ROI, put together from its tiles.

    Attributes:
        frame_id: Name of the ROI.
        patient: Patient of the ROI.
        codes: uint16 (H, W), the class of each pixel; `ClassImages.nothing_code` where it has none.
        ignore: bool (H, W), True where a pixel is not scored.
    """

    def __init__(
        self,
        first: Record,
        manifest: Manifest,
        images: ClassImages,
        mpp_um: float | None,
        tolerance_um: float | None,
    ) -> None:
        roi = images.rois[first.frame_id]
        self.frame_id, self.patient = first.frame_id, first.patient
        self.codes = np.full((roi.height_px, roi.width_px), images.nothing_code, np.uint16)
        self.ignore = np.ones((roi.height_px, roi.width_px), bool)
        self._classes = [info.code for info in images.classes]
        self._nothing = images.nothing_code
        self._mpp_um, self._tolerance_um = mpp_um, tolerance_um
        self._of_instances = manifest.object_kind == "instance"
        # Labels are the values of the source's mask, before classes are merged.
        self._class_of = np.arange(1 << 16, dtype=np.uint16)
        for code, into in manifest.merges.items():
            self._class_of[code] = into
        self._added: set[int] = set()

    @cached_property
    def outlines(self) -> TileOutlines | None:
        """Comparer of outlines, to be used after all tiles were added; None without a resolution or tolerance."""
        if self._mpp_um is None or self._tolerance_um is None:
            return None
        return TileOutlines(self.ignore, (self._mpp_um, self._mpp_um), self._tolerance_um)

    def add(self, record: Record) -> None:
        """Add the pixels of one tile: classes once for each tile, instances for each part of the tile's objects."""
        if record.index in self._added and not self._of_instances:
            return
        self._added.add(record.index)
        left, top, right, bottom = tile_place(record.origin_xy, record.labels.shape[0], record.scale_xy)
        size_xy = (right - left, bottom - top)
        labels, ignore = (
            cv2.resize(values, size_xy, interpolation=cv2.INTER_NEAREST_EXACT)
            for values in (self._classes_in(record), record.ignore.view(np.uint8))
        )
        height, width = self.codes[top:bottom, left:right].shape
        labels, ignore = labels[:height, :width], ignore[:height, :width].astype(bool)
        wanted = np.isin(labels, self._classes) & ~ignore
        self.codes[top:bottom, left:right][wanted] = labels[wanted]
        self.ignore[top:bottom, left:right] &= ignore

    def _classes_in(self, record: Record) -> NDArray[np.uint16]:
        """Return the class of each pixel, uint16 (S, S)."""
        if not self._of_instances:
            return self._class_of[record.labels]
        classes = np.full(record.labels.shape, self._nothing, np.uint16)
        for segment, class_id in zip(record.segments, record.class_ids, strict=True):
            classes[segment] = class_id
        return classes


def _means(scores: list[RoiScore], names: dict[int, str]) -> dict[str, Any]:
    patients = np.array([score.patient for score in scores])
    classes = np.array([score.class_id for score in scores])
    measures = {name: np.array([getattr(score, name) for score in scores]) for name in ("dice", "surface_dice")}

    def means(rows: NDArray[np.bool_]) -> dict[str, Any]:
        return class_means({name: values[rows] for name, values in measures.items()}, patients[rows], classes[rows])

    return {
        "class_mean": means(np.ones(len(scores), bool)),
        "classes": {name: means(classes == code) for code, name in names.items() if (classes == code).any()},
        "rois": len({score.frame_id for score in scores}),
    }
