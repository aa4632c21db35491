"""Choose the writers that write answers to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.choices import BaselineName
from train.model.names import BASELINE
from train.output.class_images import ClassImages
from train.output.coco import MaskWriter
from train.output.coco_truth import TruthWriter
from train.output.roi_scores import RoiScorer
from train.output.stitch import RoiStitcher, RoiWriter
from train.score.sinks import AnswerSink, ScoredAnswerSink, WithoutTruth
from train.score.tile_answer import Answer


def answer_writers(images: ClassImages, out: Path, *, save_masks: bool, stitch: bool) -> tuple[AnswerSink, ...]:
    """Return the writers that do not need the truth, and write `out/classes.json`, which explains their PNGs.

    Args:
        images: Makes the PNGs.
        out: The folder to write to.
        save_masks: Whether to write the masks of each tile below `out/masks`.
        stitch: Whether to write an image of each ROI below `out/stitched`.
    """
    writers: list[AnswerSink] = []
    if save_masks or stitch:
        images.write_codes(out)
    if save_masks:
        writers.append(MaskWriter(images, out / "masks"))
    if stitch:
        writers.append(RoiStitcher(images, RoiWriter(images, out / "stitched")))
    return tuple(writers)


@dataclass(frozen=True)
class WrittenModels:
    """The models whose masks are written: all but the baselines, and those baselines that were asked for.

    Attributes:
        baselines: Names of the baselines that were asked for.
    """

    baselines: tuple[BaselineName, ...] = ()

    def __contains__(self, model: object) -> bool:
        name = str(model)
        return not name.startswith(BASELINE) or name.removeprefix(BASELINE) in self.baselines


@dataclass(frozen=True)
class _MasksOf:
    """Passes the answers of some models on to a writer of masks."""

    models: WrittenModels
    sink: AnswerSink

    def __call__(self, answer: Answer) -> None:
        if answer.model in self.models:
            self.sink(answer)

    def close(self) -> None:
        self.sink.close()


def evaluation_writers(
    store: Store, out: Path, models: WrittenModels, *, save_masks: bool
) -> tuple[ScoredAnswerSink, ...]:
    """Return the writers of masks and of `out/masks/truth.json`; without `save_masks`, there are none."""
    if not save_masks:
        return ()
    images = ClassImages.from_store(store)
    without_truth = answer_writers(images, out, save_masks=True, stitch=False)
    masks = (WithoutTruth(_MasksOf(models, writer)) for writer in without_truth)
    return TruthWriter(images.classes, out / "masks"), *masks


def roi_scorer(store: Store, out: Path, models: WrittenModels, tolerance_um: float | None) -> RoiScorer:
    """Return an object that stitches ROIs, scores them, and writes those of some models below `out/stitched`."""
    images = ClassImages.from_store(store)
    images.write_codes(out)
    write = RoiWriter(images, out / "stitched")

    def receive(model: str, kind: PromptKind, frame_id: str, codes: NDArray[np.uint8 | np.uint16]) -> None:
        if model in models:
            write(model, kind, frame_id, codes)

    return RoiScorer(store, tolerance_um, receive)
