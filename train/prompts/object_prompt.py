"""The prompt of one object: a box, clicks, or both.

Coordinates are x, y. They are measured from the corner of the first pixel, so the center of pixel 0 is at 0.5. The
right and bottom of a box are exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.errors import SourceError
from train.prompts.object_class import ObjectClass

Xy = tuple[float, float]
Area = tuple[float, float, float, float]
"""Left, top, right and bottom."""

FORMATS_REMEDY = "give GeoJSON, CSV (image,object,x,y,label or image,object,x0,y0,x1,y1) or COCO boxes"
"""Remedy for a file of prompts that cannot be used."""


def is_in(xy: Xy, area: Area) -> bool:
    """Return whether a click lies in an area."""
    left, top, right, bottom = area
    return left <= xy[0] < right and top <= xy[1] < bottom


def touches(box: Area, area: Area) -> bool:
    """Return whether a box and an area have a common part."""
    return box[0] < area[2] and box[2] > area[0] and box[1] < area[3] and box[3] > area[1]


@dataclass(frozen=True)
class ObjectPrompt:
    """The prompt of one object.

    Attributes:
        name: Name of the object; its number in the file if the file gives no name.
        box: Left, top, right and bottom; None without a box.
        points: Clicks, each with True if it is on the object and False if it is not.
        kind: Class of the object; None if it is not known.
    """

    name: str
    box: Area | None = None
    points: tuple[tuple[Xy, bool], ...] = ()
    kind: ObjectClass | None = None

    @property
    def positive(self) -> list[Xy]:
        """The clicks on the object."""
        return [xy for xy, is_on in self.points if is_on]

    @property
    def extent(self) -> Area:
        """The box, or the box around the positive clicks."""
        if self.box is not None:
            return self.box
        xs, ys = zip(*self.positive, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def shifted(self, x: float, y: float) -> ObjectPrompt:
        """Return the object with its box and clicks moved."""
        box = None
        if self.box is not None:
            box = (self.box[0] + x, self.box[1] + y, self.box[2] + x, self.box[3] + y)
        return replace(self, box=box, points=tuple(((px + x, py + y), is_on) for (px, py), is_on in self.points))

    def inside(self, area: Area) -> ObjectPrompt | None:
        """Return the object without the clicks outside an area; None if no box and no click on it is inside."""
        kept = replace(self, points=tuple((xy, is_on) for xy, is_on in self.points if is_in(xy, area)))
        is_inside = bool(kept.positive) if self.box is None else touches(self.box, area)
        return kept if is_inside else None


PromptsByImage = dict[str, list[ObjectPrompt]]
"""The prompts of each image, by the name or stem of its file; an empty name stands for the only image."""


def checked_box(where: str, box: Area) -> Area:
    """Return a box, unless it has no pixel.

    Args:
        where: The file and line of the box, for messages.
        box: Left, top, right and bottom; right and bottom are exclusive.

    Raises:
        SourceError: The box is empty, or its ends come first.
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        what = f"has a box of {right - left:g} x {bottom - top:g} px"
        raise SourceError(where, what, "give a box of at least one pixel, with its left and top first")
    return box
