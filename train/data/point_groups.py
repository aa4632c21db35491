"""Objects grouped by their number of real points, since the decoder takes no padding.

Axes: O objects of the batch, K points.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from schemas.points import PointLabel


@dataclass(frozen=True)
class PointGroup:
    """Objects whose prompts have the same number of real points.

    A padding point would take part in the decoder's attention and change the mask, and the number of points decides
    between three masks and one, so each number is decoded on its own, without padding.

    Attributes:
        count: Real points of each.
        objects: int64 (n,), their places along O.
    """

    count: int
    objects: Tensor


def group_by_points(labels: Tensor) -> tuple[PointGroup, ...]:
    """Group objects by their number of real points.

    Args:
        labels: int32 (O, K), -1 is padding.
    """
    counts = (labels != PointLabel.PADDING).sum(-1)
    return tuple(PointGroup(int(count), (counts == count).nonzero()[:, 0]) for count in counts.unique())
