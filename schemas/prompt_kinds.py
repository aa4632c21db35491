"""The prompt kinds of a store, and the sets of points that the store keeps for them.

These tables decide which columns a store has, how they are checked, counted and verified, and which kinds the command
lines offer. A new stored kind needs an entry in each table, and code in `prep/derive/points.py` to derive its points.
The command lines read this module when they start, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal

PromptKind = Literal["centroid", "multi_point", "box"]


class PointLabel(IntEnum):
    """What a point means to SAM 2's prompt encoder."""

    PADDING = -1
    NEGATIVE = 0
    POSITIVE = 1
    BOX_TOP_LEFT = 2
    BOX_BOTTOM_RIGHT = 3


@dataclass(frozen=True)
class PointCounts:
    """How many points a build derives for each object.

    Attributes:
        positive: P, `--positive-points`; at least 1.
        negative: Q, `--negative-points`; may be 0.
    """

    positive: int
    negative: int


@dataclass(frozen=True)
class PointSet:
    """Points of one meaning that a store keeps for each object, padded to equal length.

    Attributes:
        name: First part of its columns' names: `prompts/<name>_coords` and `prompts/<name>_labels`.
        label: The label of its points; a place without a point has the label `PADDING`.
        count: How many points are derived for an object; an object without room for all of them has fewer.
    """

    name: str
    label: PointLabel
    count: Callable[[PointCounts], int]

    @cached_property
    def coords_path(self) -> str:
        """Path in the store of the coordinates, float32 (M, columns, 2) as x, y."""
        return f"prompts/{self.name}_coords"

    @cached_property
    def labels_path(self) -> str:
        """Path in the store of the labels, int32 (M, columns)."""
        return f"prompts/{self.name}_labels"

    def columns(self, counts: PointCounts) -> int:
        """Number of places for points of each object: the number of points, or 1 for padding if there are no points."""
        return max(self.count(counts), 1)


INTERIOR = PointSet("interior", PointLabel.POSITIVE, lambda _: 1)
POSITIVE = PointSet("positive", PointLabel.POSITIVE, lambda counts: counts.positive)
NEGATIVE = PointSet("negative", PointLabel.NEGATIVE, lambda counts: counts.negative)

POINT_SETS: dict[str, PointSet] = {points.name: points for points in (INTERIOR, POSITIVE, NEGATIVE)}
"""All sets by name, in the order in which they are derived. They draw from the object's random generator in this order,
so a new set must come last to keep the points of the other sets unchanged."""


@dataclass(frozen=True)
class PromptSource:
    """Which stored values a prompt is made of, in this order.

    Attributes:
        has_box: Whether the corners of `objects/box_xyxy` come first.
        point_sets: The sets whose points follow.
    """

    has_box: bool = False
    point_sets: tuple[PointSet, ...] = ()


PROMPT_SOURCES: dict[PromptKind, PromptSource] = {
    "centroid": PromptSource(point_sets=(INTERIOR,)),
    "multi_point": PromptSource(point_sets=(POSITIVE,)),
    "box": PromptSource(has_box=True),
}
"""What each kind is made of; a prompt with negative points ends with the points of `NEGATIVE`."""
