"""Join the objects of overlapping windows, so that no object is split or found twice.

Windows come row by row. If two masks agree where their windows overlap, they are parts of one object. Coordinates are
x, y in pixels of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from train.predict.found_object import Box, FoundObject, common_box, joint_box

AGREEMENT = 0.5
"""Two masks are one object if their IoU within the overlap of their windows is at least this."""

DUPLICATE = 0.7
"""Two masks are duplicates of one object if at least this share of each of them lies in the other one."""

MAX_SIDE_PX = 8192
"""Longest side of an object that is joined from parts. The limit keeps memory from growing with the slide."""


@dataclass(frozen=True, eq=False)
class _Open:
    """An object that a later window may still extend.

    Attributes:
        found: The object so far.
        windows: The windows that it was found in.
    """

    found: FoundObject
    windows: tuple[Box, ...]


class SeamJoiner:
    """Joins objects. Call `add` with each window's objects, `finished_above` after each row, and `close` at the end."""

    def __init__(self) -> None:
        self._open: list[_Open] = []

    def add(self, window: Box, objects: list[FoundObject]) -> None:
        """Add the objects of a window, in pixels of the grid.

        If two masks of the window cover each other, the one with the lower IoU estimate is dropped. SAM 2's own rules
        compare only boxes, which a few stray pixels can make different.
        """
        new: list[_Open] = []
        # The best object comes first, so that each object is compared with better ones.
        for found in sorted(objects, key=lambda item: -item.iou):
            part: _Open | None = _Open(found, (window,))
            if any(_is_twice(other.found, found) for other in new):
                continue
            for before in [item for item in self._open if common_box(item.found.box, found.box)]:
                joined = _joined(before, part)
                if joined is not None:
                    self._open.remove(before)
                    part = joined
                elif _is_twice(before.found, part.found):
                    if before.found.iou >= part.found.iou or len(before.windows) > 1:
                        part = None
                        break
                    self._open.remove(before)
            if part is not None:
                new.append(part)
        self._open += new

    def finished_above(self, y: int) -> list[FoundObject]:
        """Return and forget the objects that no later window can extend, the largest first.

        Args:
            y: First row of pixels of the next row of windows.
        """
        done = [item.found for item in self._open if max(window[3] for window in item.windows) <= y]
        self._open = [item for item in self._open if max(window[3] for window in item.windows) > y]
        return in_order(done)

    def close(self) -> list[FoundObject]:
        """Return the remaining objects, the largest first."""
        left, self._open = [item.found for item in self._open], []
        return in_order(left)


def in_order(objects: list[FoundObject]) -> list[FoundObject]:
    """Sort objects, the largest first."""
    # One object may lie in another, and a label image shows the later one.
    return sorted(objects, key=lambda found: (-found.area_px, found.box, -found.iou))


def _joined(first: _Open, second: _Open) -> _Open | None:
    """Return two objects as one if their masks agree where their windows overlap; otherwise None."""
    box = joint_box(first.found.box, second.found.box)
    if max(box[2] - box[0], box[3] - box[1]) > MAX_SIDE_PX:
        return None
    common = common_box(first.found.box, second.found.box)
    if common is None:
        return None
    seen = _seen_by_both(box, first.windows, second.windows)
    one, other = first.found.within(box), second.found.within(box)
    both = int(np.count_nonzero(one & other & seen))
    either = int(np.count_nonzero((one | other) & seen))
    if not both or both < AGREEMENT * either:
        return None
    areas = first.found.area_px, second.found.area_px
    weights = np.array(areas) / sum(areas)
    iou = float(weights @ [first.found.iou, second.found.iou])
    stability = float(weights @ [first.found.stability, second.found.stability])
    joined = FoundObject.cut(one | other, (box[0], box[1]), iou, stability)
    assert joined is not None
    kind = first.found.kind or second.found.kind
    return _Open(replace(joined, kind=kind), tuple(dict.fromkeys((*first.windows, *second.windows))))


def _seen_by_both(box: Box, first: tuple[Box, ...], second: tuple[Box, ...]) -> NDArray[np.bool_]:
    """Return which pixels of a box the windows of both objects show."""
    shown = [np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_) for _ in range(2)]
    for mask, windows in zip(shown, (first, second), strict=True):
        for window in windows:
            part = common_box(box, window)
            if part is not None:
                mask[part[1] - box[1] : part[3] - box[1], part[0] - box[0] : part[2] - box[0]] = True
    return shown[0] & shown[1]


def _is_twice(first: FoundObject, second: FoundObject) -> bool:
    """Return whether most of each mask lies in the other one."""
    common = common_box(first.box, second.box)
    if common is None:
        return False
    both = int(np.count_nonzero(first.within(common) & second.within(common)))
    return both >= DUPLICATE * max(first.area_px, second.area_px)
