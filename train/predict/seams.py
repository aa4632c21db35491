"""Join the objects of overlapping windows, so that no object is split or found twice.

Windows come row by row. An object is cut if it reaches an edge of its window that is not an edge of the image; all
other objects are whole. Masks that agree where their windows overlap are masks of one object:

* Two cut masks are joined.
* A whole mask replaces a cut mask inside it, and is never extended.
* If a whole mask lies inside another with a better IoU estimate, only the better one stays; otherwise both stay.

A cut mask that agrees with no mask of another window is left out: its other part is not known. SAM 2's automatic mask
generator, too, leaves out masks that the edges of its crops cut.

Coordinates are x, y in pixels of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from train.results.found_object import Box, FoundObject, common_box, joint_box

AGREEMENT = 0.5
"""Two masks are of one object if their IoU within the overlap of their windows is at least this."""

INSIDE = 0.6
"""A mask lies inside another one if at least this share of it does: outlines of one object differ at its edge."""

DUPLICATE = 0.5
"""Two masks are duplicates of one object if more than this share of each lies in the other one."""

EDGE_SHARE = 20 / 1024
"""A mask reaches an edge of its window if it is at most this share of the window away from it, as in SAM 2's automatic
mask generator (`is_box_near_crop_edge`): masks often end a little before the edge that cuts their object."""

MAX_SIDE_PX = 8192
"""Longest side of an object that is joined from parts. The limit keeps memory from growing with the slide."""


@dataclass(eq=False)
class _Open:
    """An object that a later window may still extend.

    Attributes:
        found: The object so far.
        windows: The windows that it was found in.
        cut: Whether it reaches a part of the image that none of these windows shows.
        agreed: Whether a mask of another window agrees with it.
    """

    found: FoundObject
    windows: tuple[Box, ...]
    cut: bool
    agreed: bool = False


class SeamJoiner:
    """Joins objects. Call `add` with each window's objects, `finished_above` after each row, and `close` at the end.

    Args:
        size_xy: Width and height of the grid.
        windows_overlap: Whether windows overlap. If they do not, no mask can agree with another one, so all stay.
    """

    def __init__(self, size_xy: tuple[int, int], *, windows_overlap: bool = True) -> None:
        self._size_xy, self._windows_overlap = size_xy, windows_overlap
        self._open: list[_Open] = []

    def add(self, window: Box, objects: list[FoundObject]) -> None:
        """Add the objects of a window, in pixels of the grid.

        If two masks of the window cover each other, the one with the lower IoU estimate is dropped. SAM 2's own rules
        compare only boxes, which a few stray pixels can make different.
        """
        new: list[_Open] = []
        # The best object comes first, so that each object is compared with better ones.
        for found in sorted(objects, key=lambda item: -item.iou):
            part: _Open | None = self._opened(found, (window,))
            if not any(_are_duplicates(other.found, found) for other in new):
                part = self._without_agreeing(part)
                part = self._without_duplicate(part) if part else None
                # A mask that was joined may now cover one that was not.
                if part and not any(_are_duplicates(other.found, part.found) for other in new):
                    new.append(part)
        self._open += new

    def _without_agreeing(self, part: _Open) -> _Open | None:
        """Settle a new mask with the open masks of the same object; return None if one of those stays instead."""
        near = [item for item in self._open if common_box(item.found.box, part.found.box)]
        agreeing = [(_agreement(item, part), item) for item in near]
        new = part
        # The masks that agree best come first.
        for agreement, before in sorted(agreeing, key=lambda pair: -pair[0]):
            # A mask that was joined is larger than the new one, and may no longer agree.
            if (agreement if part is new else _agreement(before, part)) < AGREEMENT:
                continue
            if before.cut and part.cut:
                joined = self._joined(before, part)
                if joined is not None:
                    self._open.remove(before)
                    part = joined
                before.agreed = part.agreed = True
            elif _takes_place(before, part):
                return None
            elif _takes_place(part, before):
                self._open.remove(before)
            else:
                before.agreed = part.agreed = True
        return part

    def _without_duplicate(self, part: _Open) -> _Open | None:
        """Drop the worse of each two masks that cover each other; return None if that is the new mask."""
        for before in [item for item in self._open if _are_duplicates(item.found, part.found)]:
            if before.found.iou >= part.found.iou or len(before.windows) > 1:
                return None
            self._open.remove(before)
        return part

    def finished_above(self, y: int) -> list[FoundObject]:
        """Return and forget the objects that no later window can extend, the largest first.

        Args:
            y: First row of pixels of the next row of windows.
        """
        done = [item for item in self._open if max(window[3] for window in item.windows) <= y]
        self._open = [item for item in self._open if max(window[3] for window in item.windows) > y]
        return self._known(done)

    def close(self) -> list[FoundObject]:
        """Return the remaining objects, the largest first."""
        left, self._open = self._open, []
        return self._known(left)

    def _known(self, items: list[_Open]) -> list[FoundObject]:
        """Return the objects that are whole, or of which another window has a mask, too; the largest first."""
        return in_order([item.found for item in items if item.agreed or not (item.cut and self._windows_overlap)])

    def _joined(self, first: _Open, second: _Open) -> _Open | None:
        """Return two masks of one object as one; None if that is too large, or both saw the same window."""
        box = joint_box(first.found.box, second.found.box)
        if max(box[2] - box[0], box[3] - box[1]) > MAX_SIDE_PX or not set(first.windows).isdisjoint(second.windows):
            return None
        areas = first.found.area_px, second.found.area_px
        weights = np.array(areas) / sum(areas)
        iou = float(weights @ [first.found.iou, second.found.iou])
        stability = float(weights @ [first.found.stability, second.found.stability])
        either = first.found.within(box) | second.found.within(box)
        joined = FoundObject.from_mask(either, (box[0], box[1]), iou, stability)
        assert joined is not None
        kind = first.found.kind or second.found.kind
        return self._opened(replace(joined, kind=kind), (*first.windows, *second.windows))

    def _opened(self, found: FoundObject, windows: tuple[Box, ...]) -> _Open:
        return _Open(found, windows, _is_cut(found, windows, self._size_xy))


def in_order(objects: list[FoundObject]) -> list[FoundObject]:
    """Sort objects, the largest first."""
    return sorted(objects, key=lambda found: (-found.area_px, found.box, -found.iou))


def _is_cut(found: FoundObject, windows: tuple[Box, ...], size_xy: tuple[int, int]) -> bool:
    """Return whether an object reaches a part of the image that no window shows."""
    first = windows[0]
    margin = max(round((first[2] - first[0]) * EDGE_SHARE), 1)
    left, top, right, bottom = found.box
    box = max(left - margin, 0), max(top - margin, 0), min(right + margin, size_xy[0]), min(bottom + margin, size_xy[1])
    hidden = ~_shown(box, windows)
    if not hidden.any():
        return False
    near = cv2.dilate(hidden.view(np.uint8), np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    return bool((near.astype(np.bool_) & found.within(box)).any())


def _agreement(first: _Open, second: _Open) -> float:
    """Return the IoU of two masks where the windows of both overlap."""
    box = common_box(_around(first.windows), _around(second.windows))
    if box is None:
        return 0.0
    seen = _shown(box, first.windows) & _shown(box, second.windows)
    one, other = first.found.within(box) & seen, second.found.within(box) & seen
    both = int(np.count_nonzero(one & other))
    return both / int(np.count_nonzero(one | other)) if both else 0.0


def _around(boxes: tuple[Box, ...]) -> Box:
    """Return the smallest box that contains some boxes."""
    return reduce(joint_box, boxes)


def _shown(box: Box, windows: tuple[Box, ...]) -> NDArray[np.bool_]:
    """Return which pixels of a box the windows show, bool (h, w)."""
    shown = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    for window in windows:
        part = common_box(box, window)
        if part is not None:
            shown[part[1] - box[1] : part[3] - box[1], part[0] - box[0] : part[2] - box[0]] = True
    return shown


def _takes_place(first: _Open, second: _Open) -> bool:
    """Return whether the first of two masks that agree stays, and the second one goes because it lies in the first."""
    if first.cut or (not second.cut and first.found.iou < second.found.iou):
        return False
    return _common_px(first.found, second.found) >= INSIDE * second.found.area_px


def _common_px(first: FoundObject, second: FoundObject) -> int:
    common = common_box(first.box, second.box)
    return 0 if common is None else int(np.count_nonzero(first.within(common) & second.within(common)))


def _are_duplicates(first: FoundObject, second: FoundObject) -> bool:
    """Return whether most of each mask lies in the other one."""
    return _common_px(first, second) > DUPLICATE * max(first.area_px, second.area_px)
