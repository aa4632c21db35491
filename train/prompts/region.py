"""Find the prompts in an image and its region, and move them to pixels of the grid. Coordinates are x, y."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from schemas.errors import ConfigError, SourceError
from train.prompts.object_prompt import Area, ObjectPrompt, is_in, touches
from train.slide.working_grid import WorkingGrid

logger = logging.getLogger(__name__)


def outside(item: ObjectPrompt, size_xy: tuple[int, int]) -> tuple[int, int] | None:
    """Return the first pixel of a box without a pixel of the image, or that of a click outside; None if all is inside.

    Args:
        item: The prompt.
        size_xy: Width and height of the image.
    """
    area = (0, 0, *size_xy)
    if item.box is not None and not touches(item.box, area):
        away = item.box[:2]
    else:
        away = next((xy for xy, _ in item.points if not is_in(xy, area)), None)
    return None if away is None else (math.floor(away[0]), math.floor(away[1]))


def in_region(
    asked: Sequence[ObjectPrompt],
    path: Path,
    size_xy: tuple[int, int],
    region: tuple[int, int, int, int] | None,
    origin_xy: tuple[int, int] = (0, 0),
) -> list[ObjectPrompt]:
    """Return the prompts in a region of an image in pixels of level 0, without their clicks outside it.

    Args:
        asked: The prompts, counted from `origin_xy`.
        path: Path of the image, for messages.
        size_xy: Width and height of the image.
        region: Left, top, width and height in pixels of level 0; None is the whole image.
        origin_xy: The pixel of level 0 from which the prompts count.

    Raises:
        SourceError: A box, or a click of any kind, lies outside the image.
        ConfigError: The region has no prompt.
    """
    asked = [item.shifted(*origin_xy) for item in asked]
    for item in asked:
        away = outside(item, size_xy)
        if away is not None:
            what = f"has the prompt {item.name} outside, at {away[0] - origin_xy[0]}, {away[1] - origin_xy[1]}"
            remedy = f"give coordinates in its {size_xy[0]} x {size_xy[1]} pixels of level 0"
            raise SourceError(path, what, remedy)
    cut = [item.name for item in asked if item.box is not None and _reaches_out(item.box, size_xy)]
    if cut:
        size = f"{size_xy[0]} x {size_xy[1]} px"
        logger.warning("%s: boxes that reach outside its %s: %d, such as %s", path, size, len(cut), cut[0])
    if region is None:
        return asked
    left, top, width, height = region
    found = [kept for item in asked if (kept := item.inside((left, top, left + width, top + height)))]
    if not found:
        what = f"has none of the {len(asked)} prompts of {path}"
        raise ConfigError("--region", what, "give X,Y,W,H around prompts, in pixels of level 0")
    if len(found) < len(asked):
        logger.warning("%s: prompts outside --region that are left out: %d", path, len(asked) - len(found))
    return found


def _reaches_out(box: Area, size_xy: tuple[int, int]) -> bool:
    """Return whether a box ends more than a pixel outside an image; programs round to whole pixels in many ways."""
    left, top, right, bottom = box
    return min(left, top) < -1 or right > size_xy[0] + 1 or bottom > size_xy[1] + 1


def on_grid(asked: Sequence[ObjectPrompt], grid: WorkingGrid) -> Iterator[ObjectPrompt]:
    """Convert prompts from pixels of level 0 to pixels of the grid; see `in_region` for those outside."""
    for item in asked:
        box = None
        if item.box is not None:
            corners = grid.from_level0(np.array(item.box, np.float64).reshape(2, 2)).ravel().tolist()
            box = (corners[0], corners[1], corners[2], corners[3])
        moved = grid.from_level0(np.array([xy for xy, _ in item.points], np.float64).reshape(-1, 2)).tolist()
        points = tuple(((x, y), is_on) for (x, y), (_, is_on) in zip(moved, item.points, strict=True))
        yield replace(item, box=box, points=points)
