"""Write the true segments as a COCO data set, `truth.json`, which matches the results of `train.output.coco`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.classes import ClassInfo
from schemas.record import Record
from train.output.coco import ObjectNumbers, run_lengths, tile_file_name
from train.score.tile_answer import ScoredAnswer


class TruthWriter:
    """Writes `OUT/truth.json` with every object of the tiles that it has seen. Ignored pixels are left out.

    Call it with every scored answer, then `close`.

    Args:
        classes: Code and name of every class.
        out: The folder to write to.
    """

    def __init__(self, classes: Sequence[ClassInfo], out: Path) -> None:
        self.classes = classes
        self.out = out
        self._numbers = ObjectNumbers()
        self._images: dict[int, dict[str, Any]] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._annotations: list[dict[str, Any]] = []

    def __call__(self, scored: ScoredAnswer) -> None:
        """Keep the objects of a record the first time that they are seen."""
        record = scored.record
        # A tile with many objects comes in parts, which differ in their first object.
        part = (record.index, *record.object_ids[:1].tolist())
        if part in self._seen:
            return
        self._seen.add(part)
        height, width = record.ignore.shape
        self._images[record.index] = {
            "id": record.index,
            "file_name": tile_file_name(record.frame_id, record.origin_xy),
            "width": width,
            "height": height,
        }
        self._annotations += self._tile_annotations(record)

    def close(self) -> None:
        """Write the file."""
        truth = {
            "images": list(self._images.values()),
            "annotations": self._annotations,
            "categories": [{"id": info.code, "name": info.name} for info in self.classes],
        }
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "truth.json").write_text(json.dumps(truth), encoding="utf-8")

    def _tile_annotations(self, record: Record) -> list[dict[str, Any]]:
        numbers = self._numbers.of_objects(record.index, record.object_ids)
        masks = record.segments & ~record.ignore
        return [
            {
                "id": number,
                "image_id": record.index,
                "category_id": int(class_id),
                "segmentation": run_lengths(mask),
                "area": int(mask.sum()),
                "bbox": _box_xywh(mask),
                "iscrowd": 0,
            }
            for number, class_id, mask in zip(numbers, record.class_ids, masks, strict=True)
        ]


def _box_xywh(mask: NDArray[np.bool_]) -> list[int]:
    """Return left, top, width and height of a mask in pixels, all 0 for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0, 0, 0, 0]
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
