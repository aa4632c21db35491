"""The prompt of one object, and how it is put together from the columns of a store.

Axes: K points of one prompt. Coordinates are x, y of pixel centers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from schemas.prompt_kinds import NEGATIVE, PointLabel, PromptSource

__all__ = ["PointLabel", "Prompt", "assemble_prompt"]


class Prompt(TypedDict):
    """The prompt of one object, without padding.

    Attributes:
        point_coords: float32 (K, 2), x and y of each point in pixels.
        point_labels: int32 (K,), the `PointLabel` of each point.
    """

    point_coords: NDArray[np.float32]
    point_labels: NDArray[np.int32]


def assemble_prompt(source: PromptSource, column: Callable[[str], NDArray[Any]], *, negatives: bool) -> Prompt:
    """Assemble the prompt of one object; box corners come first, negative points last.

    Args:
        source: What the prompt is made of.
        column: Returns the object's value in the column with the given path; it is called only for columns in use.
        negatives: Whether to append the negative points.
    """
    coords: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int32]] = []
    if source.has_box:
        coords.append(column("objects/box_xyxy").reshape(2, 2).astype(np.float32))
        labels.append(np.array([PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT], np.int32))
    for points in (*source.point_sets, *([NEGATIVE] if negatives else [])):
        coords.append(column(points.coords_path))
        labels.append(column(points.labels_path))
    all_coords, all_labels = np.concatenate(coords), np.concatenate(labels)
    real = all_labels != PointLabel.PADDING
    return {"point_coords": all_coords[real], "point_labels": all_labels[real]}
