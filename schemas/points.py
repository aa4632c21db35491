"""SAM 2's label codes, and how stored points become the prompt of one object.

Axes: K points of one prompt. Coordinates are x, y of pixel centres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from schemas.prompt_kinds import PromptKind


class PointLabel(IntEnum):
    """What a point means to SAM 2's prompt encoder."""

    PADDING = -1
    NEGATIVE = 0
    POSITIVE = 1
    BOX_TOP_LEFT = 2
    BOX_BOTTOM_RIGHT = 3


class Prompt(TypedDict):
    """One object's prompt: `point_coords` float32 (K, 2) as x, y, and `point_labels` int32 (K,), without padding."""

    point_coords: NDArray[np.float32]
    point_labels: NDArray[np.int32]


@dataclass(frozen=True)
class StoredPoints:
    """The stored points of one object, padded with label -1.

    Attributes:
        interior_coords: float32 (1, 2), on the segment.
        interior_labels: int32 (1,).
        positive_coords: float32 (P, 2), on the segment, the interior point first.
        positive_labels: int32 (P,).
        negative_coords: float32 (Q, 2), off the segment.
        negative_labels: int32 (Q,).
    """

    interior_coords: NDArray[np.float32]
    interior_labels: NDArray[np.int32]
    positive_coords: NDArray[np.float32]
    positive_labels: NDArray[np.int32]
    negative_coords: NDArray[np.float32]
    negative_labels: NDArray[np.int32]


def assemble_prompt(kind: PromptKind, column: Callable[[str], NDArray[Any]], *, negatives: bool) -> Prompt:
    """Assemble the prompt of one object; box corners come first, negative points last.

    Args:
        kind: `centroid` is the interior point, `multi_point` all positive points, `box` the two corners.
        column: The object's entry of a column by its path in the store; asked for no more than the kind takes.
        negatives: Whether to append the negative points.
    """
    if kind == "box":
        coords = [column("objects/box_xyxy").reshape(2, 2).astype(np.float32)]
        labels = [np.array([PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT], np.int32)]
    else:
        name = "interior" if kind == "centroid" else "positive"
        coords, labels = [column(f"prompts/{name}_coords")], [column(f"prompts/{name}_labels")]
    if negatives:
        coords.append(column("prompts/negative_coords"))
        labels.append(column("prompts/negative_labels"))
    all_coords, all_labels = np.concatenate(coords), np.concatenate(labels)
    real = all_labels != PointLabel.PADDING
    return {"point_coords": all_coords[real], "point_labels": all_labels[real]}
