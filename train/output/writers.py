"""The writers of files that an evaluation can have."""

from __future__ import annotations

from pathlib import Path

from schemas.store.store import Store
from train.output.coco import MaskWriter
from train.output.stitch import RoiStitcher
from train.score.protocol import ScoringProtocol
from train.score.sinks import AnswerSink


def file_sinks(
    store: Store, out: Path, protocol: ScoringProtocol, *, save_masks: bool, stitch: bool
) -> tuple[AnswerSink, ...]:
    """What writes masks below `out/masks` and ROIs below `out/stitched`, as wanted."""
    sinks: list[AnswerSink] = []
    if save_masks:
        sinks.append(MaskWriter(store, out / "masks"))
    if stitch:
        sinks.append(RoiStitcher(store, out / "stitched", protocol.thresholds))
    return tuple(sinks)
