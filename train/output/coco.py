"""Write predicted masks for other tools: a PNG for each tile, and COCO results as pycocotools loads them.

The results are a list over the objects of `truth.json`, which `train.output.coco_truth` writes where the truth is
known. Ignored pixels are in neither.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from schemas.file_names import bounded_name
from train.output.class_images import ClassImages
from train.output.model_folders import ModelFolders
from train.score.tile_answer import Answer


class MaskWriter:
    """Writes `OUT/MODEL/PROMPT/TILE.png` and `OUT/MODEL/PROMPT/results.json`.

    Call it with every answer, then `close`.

    Args:
        images: Makes the PNGs.
        out: The folder to write to.
    """

    def __init__(self, images: ClassImages, out: Path) -> None:
        self.images = images
        self.out = out
        self._folder_of = ModelFolders()
        self._results: dict[Path, list[dict[str, Any]]] = {}
        self._numbers = ObjectNumbers()

    def __call__(self, answer: Answer) -> None:
        """Write the PNG of one answer, and keep its results."""
        question = answer.question
        folder = self.out / self._folder_of(answer.model) / question.kind
        folder.mkdir(parents=True, exist_ok=True)
        picture = self.images.image(_class_codes(answer, self.images), question.frame_id)
        picture.save(folder / tile_file_name(question.frame_id, question.origin_xy))
        numbers = self._numbers.of_tile(question.index, len(question.object_ids))
        results = self._results.setdefault(folder, [])
        for row, (mask, estimate) in enumerate(zip(answer.masks & ~question.ignore, answer.iou_estimates, strict=True)):
            results.append(
                {
                    "id": numbers[row],
                    "image_id": question.index,
                    "category_id": int(question.class_ids[row]),
                    "segmentation": run_lengths(mask),
                    "score": 1.0 if np.isnan(estimate) else float(estimate),
                }
            )

    def close(self) -> None:
        """Write the COCO results."""
        for folder, results in self._results.items():
            (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


class ObjectNumbers:
    """Numbers objects from 1 on, in the order in which their tiles first appear.

    The numbers depend on that order alone, so truth and results that see the same tiles number their objects alike.
    """

    def __init__(self) -> None:
        self._of_tile: dict[int, list[int]] = {}
        self._count = 0

    def of_tile(self, index: int, objects: int) -> list[int]:
        """Return the number of each object of a tile.

        Args:
            index: Number of the tile.
            objects: How many objects it has.
        """
        if index not in self._of_tile:
            self._of_tile[index] = list(range(self._count + 1, self._count + 1 + objects))
            self._count += objects
        return self._of_tile[index]


def tile_file_name(frame_id: str, origin_xy: tuple[int, int]) -> str:
    """Return the file name of a tile's PNG; `truth.json` lists the same name."""
    x, y = origin_xy
    return bounded_name(frame_id, f"_x{x}_y{y}.png")


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask, bool (H, W), as COCO's compressed run lengths."""
    encoded = cast("dict[str, Any]", coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def _class_codes(answer: Answer, images: ClassImages) -> NDArray[np.uint8 | np.uint16]:
    """Return class codes, (S, S). Where masks overlap, the smallest is on top, since a larger one would hide it."""
    codes = np.full(answer.masks.shape[1:], images.nothing_code, images.dtype)
    for row in np.argsort(-answer.masks.sum((1, 2)), kind="stable"):
        codes[answer.masks[row]] = answer.question.class_ids[row]
    return codes
