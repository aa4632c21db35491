"""Make baseline masks from the prompts alone, without the image. A model is useful only if it scores above them.

Axes: O objects, S pixels per side. Boxes and coordinates are x, y.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.prompt_kinds import PromptKind
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


def is_oracle(name: BaselineName, kind: PromptKind) -> bool:
    """Return whether a baseline sees more of the truth than a model does under a prompt kind.

    `box` needs the object's box, and `disc` its interior point. `image` needs nothing.
    """
    return (name == "box" and kind != "box") or (name == "disc" and kind == "box")


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
    masks = np.full((len(record.object_ids), size, size), name == "image")
    for mask, (left, top, right, bottom), (x, y) in zip(masks, record.boxes_xyxy, clicks_xy, strict=True):
        if name == "box":
            mask[top : bottom + 1, left : right + 1] = True
        elif name == "disc":
            # Compute only the part where the disc may lie, because a tile may have a thousand objects.
            rows, columns = (_reach(center, radius_px, size) for center in (y, x))
            mask[np.ix_(rows, columns)] = (columns - x) ** 2 + (rows[:, None] - y) ** 2 <= radius_px**2
    return masks


def _reach(center: float, radius: float, size: int) -> NDArray[np.int64]:
    """Return the positions from 0 to size - 1 that lie within the radius of the center, with a margin on each side."""
    return np.arange(max(int(center - radius) - 1, 0), min(int(center + radius) + 2, size))
