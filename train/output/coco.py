"""Write predicted masks for other tools: a PNG for each tile, and COCO results as pycocotools loads them.

The results are a list of the same objects as in `truth.json`, which `train.output.coco_truth` writes if the truth is
known. Neither file includes ignored pixels.
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
        self._open: dict[Path, _TileCodes] = {}
        self._numbers = ObjectNumbers()

    def __call__(self, answer: Answer) -> None:
        """Keep the results of one answer, and write the PNG of its tile if no other answer about it follows."""
        question = answer.question
        folder = self.out / self._folder_of(answer.model) / question.kind
        folder.mkdir(parents=True, exist_ok=True)
        codes = self._open.pop(folder, None) or _TileCodes(question.size_px, self.images)
        codes.add(answer)
        if question.more_follow:
            self._open[folder] = codes
        else:
            picture = self.images.image(codes.codes, question.frame_id)
            picture.save(folder / tile_file_name(question.frame_id, question.origin_xy))
        numbers = self._numbers.of_objects(question.index, question.object_ids)
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
    """Numbers objects from 1 on, in the order in which they first appear.

    The numbers depend on that order alone. So if truth and results see the same objects, they give them equal numbers.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}

    def of_objects(self, index: int, object_ids: NDArray[np.int32]) -> list[int]:
        """Return the numbers of objects of a tile.

        Args:
            index: Number of the tile.
            object_ids: int32 (O,), the objects.
        """
        return [self._numbers.setdefault((index, i), len(self._numbers) + 1) for i in object_ids.tolist()]


def tile_file_name(frame_id: str, origin_xy: tuple[int, int]) -> str:
    """Return the file name of a tile's PNG; `truth.json` lists the same name."""
    x, y = origin_xy
    return bounded_name(frame_id, f"_x{x}_y{y}.png")


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask, bool (H, W), as COCO's compressed run lengths."""
    encoded = cast("dict[str, Any]", coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


class _TileCodes:
    """The class of each pixel of a tile. Where masks overlap, the smallest is on top; a larger one would hide it.

    Attributes:
        codes: uint8 or uint16 (S, S), `ClassImages.nothing_code` where there is no mask.
    """

    def __init__(self, size_px: int, images: ClassImages) -> None:
        self.codes: NDArray[np.uint8 | np.uint16] = np.full((size_px, size_px), images.nothing_code, images.dtype)
        self._area_on_top = np.full((size_px, size_px), size_px**2, np.int64)

    def add(self, answer: Answer) -> None:
        """Add the masks of some objects; of masks with equal area, the last is on top."""
        for mask, class_id in zip(answer.masks, answer.question.class_ids, strict=True):
            area = np.count_nonzero(mask)
            on_top = mask & (area <= self._area_on_top)
            self.codes[on_top] = class_id
            self._area_on_top[on_top] = area
