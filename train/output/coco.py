"""Write predictions for other tools: a palettized PNG a tile, and COCO files of run-length codes.

`truth.json` is a COCO data set of all objects, and `MODEL/PROMPT/results.json` a list of results over it, as
pycocotools loads them. Ignored pixels are in neither.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from schemas.record import Record
from schemas.store.store import Store
from train.output.model_folders import ModelFolders
from train.output.stitch import BACKGROUND_CODE, palettized
from train.score.answers import TileAnswer


class MaskWriter:
    """Writes answers below a folder; call it with each, then `close`.

    Args:
        store: Names the classes.
        out: The folder.
    """

    def __init__(self, store: Store, out: Path) -> None:
        self.store = store
        self.out = out
        self._folder_of = ModelFolders()
        self._results: dict[Path, list[dict[str, Any]]] = {}
        self._images: dict[int, dict[str, Any]] = {}
        self._truth: list[dict[str, Any]] = []
        self._ids: dict[tuple[int, int], int] = {}

    def __call__(self, answer: TileAnswer) -> None:
        """Write one answer."""
        record = answer.record
        self._add_truth(record)
        folder = self.out / self._folder_of(answer.model) / answer.kind
        folder.mkdir(parents=True, exist_ok=True)
        palette = self.store.source(record.frame_id).palette
        colors = {info.code: info.color for info in self.store.manifest.classes}
        palettized(_flat(answer), palette, colors).save(folder / _file_name(record))
        results = self._results.setdefault(folder, [])
        for row, mask in enumerate(answer.masks & ~record.ignore):
            estimate = float(answer.scores.iou_estimate[row])
            results.append(
                {
                    "id": self._ids[record.index, int(record.object_ids[row])],
                    "image_id": record.index,
                    "category_id": int(record.class_ids[row]),
                    "segmentation": run_lengths(mask),
                    "score": 1.0 if np.isnan(estimate) else estimate,
                }
            )

    def close(self) -> None:
        """Write the COCO files."""
        truth = {
            "images": list(self._images.values()),
            "annotations": self._truth,
            "categories": [{"id": info.code, "name": info.name} for info in self.store.manifest.classes],
        }
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
        for folder, results in self._results.items():
            (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")

    def _add_truth(self, record: Record) -> None:
        if record.index in self._images:
            return
        height, width = record.ignore.shape
        self._images[record.index] = {
            "id": record.index,
            "file_name": _file_name(record),
            "width": width,
            "height": height,
        }
        for object_id, class_id, segment in zip(record.object_ids, record.class_ids, record.segments, strict=True):
            mask = segment & ~record.ignore
            number = self._ids[record.index, int(object_id)] = len(self._truth) + 1
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = (int(columns[0]), int(rows[0])) if len(rows) else (0, 0)
            box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1] if len(rows) else [0, 0, 0, 0]
            self._truth.append(
                {
                    "id": number,
                    "image_id": record.index,
                    "category_id": int(class_id),
                    "segmentation": run_lengths(mask),
                    "area": int(mask.sum()),
                    "bbox": box,
                    "iscrowd": 0,
                }
            )


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run-length code of a bool (H, W)."""
    encoded = cast("dict[str, Any]", coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def _file_name(record: Record) -> str:
    x, y = record.origin_xy
    return f"{record.frame_id}_x{x}_y{y}.png"


def _flat(answer: TileAnswer) -> NDArray[np.uint8 | np.uint16]:
    """Class codes (S, S); where masks overlap, that of the smallest object, which others would hide."""
    class_ids = answer.record.class_ids
    codes = np.full(answer.masks.shape[1:], BACKGROUND_CODE, np.uint8 if class_ids.max() < 256 else np.uint16)
    for row in np.argsort(-answer.masks.sum((1, 2)), kind="stable"):
        codes[answer.masks[row]] = class_ids[row]
    return codes
