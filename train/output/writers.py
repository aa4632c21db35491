"""The choice of files that are written from answers."""

from __future__ import annotations

from pathlib import Path

from schemas.store.store import Store
from train.output.class_images import ClassImages
from train.output.coco import MaskWriter
from train.output.coco_truth import TruthWriter
from train.output.stitch import RoiStitcher
from train.score.sinks import AnswerSink, ScoredAnswerSink, WithoutTruth


def answer_writers(images: ClassImages, out: Path, *, save_masks: bool, stitch: bool) -> tuple[AnswerSink, ...]:
    """Return the writers that need no truth, and write `out/classes.json` for readers of their PNGs.

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
        writers.append(RoiStitcher(images, out / "stitched"))
    return tuple(writers)


def evaluation_writers(store: Store, out: Path, *, save_masks: bool, stitch: bool) -> tuple[ScoredAnswerSink, ...]:
    """Return the writers of an evaluation: `answer_writers`, and `out/masks/truth.json` beside the masks."""
    images = ClassImages.from_store(store)
    writers: list[ScoredAnswerSink] = []
    if save_masks:
        writers.append(TruthWriter(images.classes, out / "masks"))
    writers += [WithoutTruth(writer) for writer in answer_writers(images, out, save_masks=save_masks, stitch=stitch)]
    return tuple(writers)
