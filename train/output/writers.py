"""The choice of files that are written from answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.store.store import Store
from train.output.class_images import ClassImages
from train.output.coco import MaskWriter
from train.output.coco_truth import TruthWriter
from train.output.stitch import RoiStitcher
from train.score.sinks import AnswerSink, ScoredAnswerSink, WithoutTruth


def answer_writers(
    images: ClassImages,
    out: Path,
    *,
    save_masks: bool,
    stitch: bool,
    origins_xy: Callable[[str], NDArray[np.integer]] | None = None,
) -> tuple[AnswerSink, ...]:
    """Return the writers that need no truth, and write `out/classes.json` for readers of their PNGs.

    Args:
        images: Makes the PNGs.
        out: The folder to write to.
        save_masks: Whether to write the masks of each tile below `out/masks`.
        stitch: Whether to write an image of each ROI below `out/stitched`.
        origins_xy: Gives the origins of all tiles of a ROI; see `RoiStitcher`.
    """
    writers: list[AnswerSink] = []
    if save_masks or stitch:
        images.write_codes(out)
    if save_masks:
        writers.append(MaskWriter(images, out / "masks"))
    if stitch:
        writers.append(RoiStitcher(images, out / "stitched", origins_xy))
    return tuple(writers)


def evaluation_writers(store: Store, out: Path, *, save_masks: bool, stitch: bool) -> tuple[ScoredAnswerSink, ...]:
    """Return the writers of an evaluation: `answer_writers`, and `out/masks/truth.json` beside the masks."""
    images = ClassImages.from_store(store)
    writers: list[ScoredAnswerSink] = []
    if save_masks:
        writers.append(TruthWriter(images.classes, out / "masks"))

    def origins_xy(frame_id: str) -> NDArray[np.int32]:
        return store.column("tiles/origin_xy")[store.column("tiles/frame_id") == frame_id]

    without_truth = answer_writers(images, out, save_masks=save_masks, stitch=stitch, origins_xy=origins_xy)
    writers += [WithoutTruth(writer) for writer in without_truth]
    return tuple(writers)
