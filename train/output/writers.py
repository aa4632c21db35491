"""Choose the writers that write answers to files."""

from __future__ import annotations

from pathlib import Path

from schemas.store.store import Store
from train.output.class_images import ClassImages
from train.output.coco import MaskWriter
from train.output.coco_truth import TruthWriter
from train.output.roi_scores import RoiScorer
from train.output.stitch import RoiStitcher, RoiWriter
from train.score.sinks import AnswerSink, ScoredAnswerSink, WithoutTruth


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


def evaluation_writers(store: Store, out: Path, *, save_masks: bool) -> tuple[ScoredAnswerSink, ...]:
    """Return the writers of masks and of `out/masks/truth.json`; without `save_masks`, there are none."""
    if not save_masks:
        return ()
    images = ClassImages.from_store(store)
    without_truth = answer_writers(images, out, save_masks=True, stitch=False)
    return TruthWriter(images.classes, out / "masks"), *map(WithoutTruth, without_truth)


def roi_scorer(store: Store, out: Path, tolerance_um: float | None) -> RoiScorer:
    """Return an object that stitches ROIs, writes them below `out/stitched`, and scores them."""
    images = ClassImages.from_store(store)
    images.write_codes(out)
    return RoiScorer(store, tolerance_um, RoiWriter(images, out / "stitched"))
