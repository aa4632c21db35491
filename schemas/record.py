"""One tile of a store, read whole.

Axes: O objects of the tile, S pixels per side. Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class Record:
    """One tile with its objects.

    Attributes:
        index: The tile's index in the store.
        frame_id: Stem of the ROI's file.
        patient: Name of the patient, for BCSS `TCGA-XX-XXXX`.
        institution: TCGA tissue source site; empty if unknown.
        split: `train`, `val` or `test`.
        origin_xy: x, y of the tile's top-left pixel in the ROI, in source pixels.
        scale_xy: Tile pixels for each source pixel along x and y.
        roi_size_xy: Width and height of the ROI in source pixels.
        image: uint8 (S, S, 3), RGB.
        labels: uint8 or uint16 (S, S), the values of the mask.
        ignore: bool (S, S), true where a pixel counts neither as object nor as background.
        segments: bool (O, S, S), the mask of each object.
        object_ids: int32 (O,), unique in the tile.
        class_ids: int32 (O,), the pixel value of each object's class.
        boxes_xyxy: int32 (O, 4), left, top, right and bottom, inclusive pixel indices.
        roi_components: int32 (O,), the number of each object's component in the whole ROI, counted from 1; 0 for an
            object that may have several components.
        touches_edge: bool (O,), whether each object reaches the tile's edge, beyond which it may continue.
    """

    index: int
    frame_id: str
    patient: str
    institution: str
    split: str
    origin_xy: tuple[int, int]
    scale_xy: tuple[float, float]
    roi_size_xy: tuple[int, int]
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8 | np.uint16]
    ignore: NDArray[np.bool_]
    segments: NDArray[np.bool_]
    object_ids: NDArray[np.int32]
    class_ids: NDArray[np.int32]
    boxes_xyxy: NDArray[np.int32]
    roi_components: NDArray[np.int32]
    touches_edge: NDArray[np.bool_]

    @property
    def scale(self) -> tuple[float, float]:
        """The older name of `scale_xy`, kept for existing scripts."""
        return self.scale_xy

    def __repr__(self) -> str:
        x, y = self.origin_xy
        size, objects = self.image.shape[0], len(self.object_ids)
        return f"Record({self.index}: {self.frame_id} at {x}, {y}; {self.split}, {size} px, {objects} objects)"
