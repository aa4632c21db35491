"""Baselines that use the prompts alone and not the image. A model is useful only if it scores above them.

Axes: O objects, S pixels a side. Boxes and coordinates are x, y.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.record import Record
from schemas.store.store import Store
from train.choices import BaselineName


def disc_radius_px(store: Store) -> float:
    """Return the radius in pixels of a disc that has the median area of the training objects.

    If the store has no training objects, the median is taken over all objects.
    """
    areas = store.column("objects/area_px")
    of_train = store.column("tiles/split")[store.column("objects/tile_index")] == "train"
    return float(np.sqrt(np.median(areas[of_train] if of_train.any() else areas) / np.pi))


def baseline_masks(
    name: BaselineName, record: Record, clicks_xy: NDArray[np.float32], radius_px: float
) -> NDArray[np.bool_]:
    """Make the mask of each object of a tile.

    Args:
        name: `box` fills the object's box, `image` fills the whole tile, `disc` draws a disc around the click.
        record: The tile.
        clicks_xy: float32 (O, 2), the interior point of each object, in tile pixels.
        radius_px: Radius of the disc in pixels.

    Returns:
        bool (O, S, S), one mask for each object.
    """
    size = record.image.shape[0]
    y, x = np.mgrid[:size, :size]
    masks = np.ones((len(record.object_ids), size, size), bool)
    for row, (box, click) in enumerate(zip(record.boxes_xyxy, clicks_xy, strict=True)):
        if name == "box":
            masks[row] = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
        elif name == "disc":
            masks[row] = (x - click[0]) ** 2 + (y - click[1]) ** 2 <= radius_px**2
    return masks
