"""Group objects by their number of real points, so that the decoder sees no padding.

Axes: O objects of the batch, K points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.prompt_kinds import PointLabel


@dataclass(frozen=True)
class PointGroup:
    """Objects whose prompts have the same number of real points.

    Each group is decoded on its own, without padding, for two reasons. A padding point would take part in the
    decoder's attention and change the mask. And the number of points decides whether SAM 2 predicts three masks or one.

    Attributes:
        count: Number of real points of each object. 0 stands for the object's mask as the prompt, which only the first
            of several frames can have.
        objects: Indices of the group's objects along the axis O, int64 (n,).
        corrected: Numbers of the frames that get correction clicks.
    """

    count: int
    objects: Tensor
    corrected: tuple[int, ...] = (0,)


def group_by_points(labels: Tensor, corrected: Sequence[tuple[int, ...]] | None = None) -> tuple[PointGroup, ...]:
    """Group objects by their number of real points, and in windows of frames also by the frames that get clicks.

    Args:
        labels: The point labels, int32 (O, K); -1 is padding.
        corrected: Numbers of the frames in which each object gets correction clicks; the first one unless given.

    Returns:
        One group for each combination that occurs, in ascending order of the number of points.
    """
    counts: list[int] = (labels != PointLabel.PADDING).sum(-1).tolist()
    rows: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for row, key in enumerate(zip(counts, corrected or [(0,)] * len(counts), strict=True)):
        rows.setdefault(key, []).append(row)
    return tuple(
        PointGroup(count, torch.tensor(rows[count, frames], device=labels.device), frames)
        for count, frames in sorted(rows)
    )
