"""Predict the prompted objects, each in a window around it.

The rules for choosing a window: A window has the size of the training tiles. If an object is at most half as large as
a window, it gets the window whose center is nearest to the center of the object. These windows lie at steps of half a
window, so near objects share a window and the encoder runs only once for them. A larger object that fits into a window
gets a window around its own center. An even larger object gets a window of twice the side at half the resolution, or
four times the side, and so on. So does an object that was prompted only by clicks and reaches the edge of its window.
The outline from such a coarse window is refined at full resolution, window by window, with the coarse mask as a prompt.
Pixels farther from the outline stay as they are, because a small window shows too little of a large object.

Coordinates are x, y in pixels of the grid. Axes: O objects, S pixels along a side of a window.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from schemas.errors import ConfigError, SourceError
from train.model.predictor import MaskPredictor
from train.predict.asked_object import AskedObject, Xy, is_in
from train.predict.found_object import FoundObject
from train.predict.tile_ask import as_prompt, ask
from train.slide.working_grid import WorkingGrid

logger = logging.getLogger(__name__)

WIDEST_PX = 1 << 14
"""Longest side of an enlarged window in pixels of the grid. The limit keeps memory from growing with the object: at
this side, a mask and its outline take about 1 GB."""

TOO_LARGE_REMEDY = "work at a lower resolution (--mpp)"

REFINE_LOGIT = 10.0
"""Logit of the pixels of a coarse mask that is used as a prompt."""


@dataclass(frozen=True)
class Window:
    """A square part of the grid.

    Attributes:
        left: x of its first pixel; it may lie outside the image.
        top: y of its first pixel.
        side: Side of the window in pixels of the grid.
    """

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class PromptOptions:
    """Settings of the prediction of prompted objects.

    Attributes:
        window_px: Side of a window in pixels of the grid.
        tta: Whether logits are averaged over the eight flips and rotations.
        threshold: A pixel whose logit is above this is in the mask.
    """

    window_px: int
    tta: bool = False
    threshold: float = 0.0


def window_of(extent: Sequence[float], size_xy: tuple[int, int], window_px: int) -> Window:
    """Choose the window of an object by the rules at the top of this module.

    Args:
        extent: Left, top, right and bottom of the object's box, or of the box around its clicks.
        size_xy: Width and height of the grid.
        window_px: S.
    """
    left, top, right, bottom = extent
    longest = max(right - left, bottom - top)
    side = window_px
    while side < min(longest, max(size_xy)) and 2 * side <= WIDEST_PX:
        side *= 2
    center = (left + right) / 2, (top + bottom) / 2
    starts: list[int] = []
    for middle, size in zip(center, size_xy, strict=True):
        start = middle - side / 2
        if longest <= window_px / 2:
            step = max(window_px // 2, 1)
            start = round(start / step) * step
        # The window lies inside the image. If the image is smaller, both start at the same place, as with tiles.
        starts.append(max(min(round(start), size - side), 0))
    return Window(starts[0], starts[1], side)


def predict_asked(
    predictor: MaskPredictor,
    grid: WorkingGrid,
    asked: Sequence[AskedObject],
    options: PromptOptions,
    on_window: Callable[[int, int, int], None] | None = None,
) -> list[FoundObject | None]:
    """Predict the objects of prompts.

    Args:
        predictor: The model.
        grid: The image.
        asked: The prompts, in pixels of the grid.
        options: Settings of the prediction.
        on_window: Function called after each window with the numbers of finished objects, of all objects, and of pixels
            of the grid in the finished windows.

    Returns:
        The objects in the order of `asked`; None where the mask is empty, or the object too large for any window.
    """
    windows: dict[Window, list[int]] = {}
    too_large: list[tuple[str, int]] = []
    for number, item in enumerate(asked):
        left, top, right, bottom = item.extent
        window = window_of(item.extent, grid.size_xy, options.window_px)
        if window.side < min(max(right - left, bottom - top), max(grid.size_xy)):
            too_large.append((item.name, window.side))
        else:
            windows.setdefault(window, []).append(number)
    if too_large:
        what = "%s: prompts that are larger than the widest window, %d px, are not predicted: %d, such as %s; %s"
        name, side = too_large[0]
        logger.warning(what, grid.source.path, side, len(too_large), name, TOO_LARGE_REMEDY)
    found: list[FoundObject | None] = [None] * len(asked)
    done, pixels = len(too_large), 0
    for window, numbers in windows.items():
        answers = _ask_window(predictor, grid, window, [asked[number] for number in numbers], options)
        for number, answer in zip(numbers, answers, strict=True):
            item = asked[number]
            result = _widened(predictor, grid, window, item, answer, options)
            found[number] = None if result is None else replace(result, kind=item.kind, name=item.name)
            done += 1
        pixels += window.side**2
        if on_window:
            on_window(done, len(asked), pixels)
    return found


def _ask_window(
    predictor: MaskPredictor, grid: WorkingGrid, window: Window, asked: Sequence[AskedObject], options: PromptOptions
) -> list[FoundObject | None]:
    """Predict objects in one window; a wide window is read at lower resolution, and its masks are enlarged."""
    factor = options.window_px / window.side
    prompts = [_in_window(item, window, factor, options.window_px) for item in asked]
    views = predictor.views(grid.read(window.left, window.top, window.side, options.window_px), all_eight=options.tta)
    ious, masks, stability = ask(predictor, views, prompts, options.window_px, options.threshold)
    found: list[FoundObject | None] = []
    for iou, mask, stable in zip(ious.tolist(), masks, stability.tolist(), strict=True):
        if window.side != options.window_px:
            size = (window.side, window.side)
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
        found.append(_clipped(mask, window, grid, iou, stable))
    return found


def _in_window(item: AskedObject, window: Window, factor: float, side: int) -> tuple[list[list[float]], list[int]]:
    box = None
    if item.box is not None:
        offsets = (window.left, window.top) * 2
        box = [(value - offset) * factor for value, offset in zip(item.box, offsets, strict=True)]
    points = [(((x - window.left) * factor, (y - window.top) * factor), is_on) for (x, y), is_on in item.points]
    return as_prompt(box, points, side)


def _clipped(
    mask: NDArray[np.bool_], window: Window, grid: WorkingGrid, iou: float, stability: float
) -> FoundObject | None:
    """Return the object of a window's mask, without the part outside the image."""
    width, height = grid.size_xy
    inside = mask[: max(height - window.top, 0), : max(width - window.left, 0)]
    return FoundObject.cut(inside, (window.left, window.top), iou, stability)


def _widened(
    predictor: MaskPredictor,
    grid: WorkingGrid,
    window: Window,
    item: AskedObject,
    found: FoundObject | None,
    options: PromptOptions,
) -> FoundObject | None:
    """Predict an object without a box again in wider windows while it reaches the edge; then refine a coarse mask."""
    while found is not None and item.box is None and _reaches_edge(found, window, grid):
        side = window.side * 2
        if window.side >= max(grid.size_xy):
            break
        if side > WIDEST_PX:
            what = "%s: the object %s is cut, because it reaches an edge of the widest window, %d px; %s"
            logger.warning(what, grid.source.path, item.name, window.side, TOO_LARGE_REMEDY)
            break
        wider = window_of((*item.positive[0], *item.positive[0]), grid.size_xy, side)
        window = Window(wider.left, wider.top, side)
        (found,) = _ask_window(predictor, grid, window, [item], options)
    if found is None or window.side == options.window_px:
        return found
    return _refined(predictor, grid, found, window, options)


def _reaches_edge(found: FoundObject, window: Window, grid: WorkingGrid) -> bool:
    """Return whether an object reaches an edge of its window that is not an edge of the image."""
    left, top, right, bottom = found.box
    width, height = grid.size_xy
    ends = window.left + window.side, window.top + window.side
    return (
        (left <= window.left and window.left > 0)
        or (top <= window.top and window.top > 0)
        or (right >= ends[0] and ends[0] < width)
        or (bottom >= ends[1] and ends[1] < height)
    )


def _refined(
    predictor: MaskPredictor, grid: WorkingGrid, coarse: FoundObject, seen: Window, options: PromptOptions
) -> FoundObject:
    """Predict again at full resolution, window by window, along the outline of the mask of a coarse window."""
    side = options.window_px
    # The coarse outline is known to half a pixel of the logits that it comes from.
    reach = max(seen.side // (predictor.model.image_size // 4) // 2, 1)
    left, top = (max(start - reach, 0) for start in coarse.box[:2])
    right, bottom = (min(end + reach, size) for end, size in zip(coarse.box[2:], grid.size_xy, strict=True))
    mask = coarse.within((left, top, right, bottom))
    near = _near_outline(mask, reach)
    for y in range(top, bottom, side // 2):
        for x in range(left, right, side // 2):
            # Only the middle of the window is used, because there the model sees the surroundings on all sides.
            window = Window(_start(x, grid.size_xy[0], side), _start(y, grid.size_xy[1], side), side)
            before = coarse.within((window.left, window.top, window.left + side, window.top + side))
            rows, columns = slice(y, min(y + side // 2, bottom)), slice(x, min(x + side // 2, right))
            here = _shifted(rows, top), _shifted(columns, left)
            if before.any() and near[here].any():
                after = _refined_window(predictor, grid, window, before, options)
                inner = after[_shifted(rows, window.top), _shifted(columns, window.left)]
                mask[here] = np.where(near[here], inner, mask[here])
    return FoundObject.cut(mask, (left, top), coarse.iou, coarse.stability) or coarse


def _near_outline(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return the pixels that are at most `reach` away from the outline of a mask.

    The image's edge does not count as outline.
    """
    kernel, pixels = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8), mask.view(np.uint8)
    return np.asarray(cv2.dilate(pixels, kernel) != cv2.erode(pixels, kernel), np.bool_)


def _start(place: int, size: int, side: int) -> int:
    """Return where a window starts along one axis so that its middle half starts at `place`; it stays in the image."""
    return max(min(place - side // 4, size - side), 0)


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)


def _refined_window(
    predictor: MaskPredictor, grid: WorkingGrid, window: Window, before: NDArray[np.bool_], options: PromptOptions
) -> NDArray[np.bool_]:
    side, low = options.window_px, predictor.model.image_size // 4
    rows, columns = np.flatnonzero(before.any(1)), np.flatnonzero(before.any(0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    small = cv2.resize(before.astype(np.float32), (low, low), interpolation=cv2.INTER_AREA)
    logits = torch.from_numpy((small - 0.5) * 2 * REFINE_LOGIT)[None].to(predictor.device)
    views = predictor.views(grid.read(window.left, window.top, side), all_eight=options.tta)
    _, masks, _ = ask(predictor, views, [as_prompt(box, [], side)], side, options.threshold, logits)
    return masks[0]


def outside(item: AskedObject, size_xy: tuple[int, int]) -> Xy | None:
    """Return the left top of a box that has no pixel of the image, or a click outside; None if all is inside."""
    area = (0, 0, *size_xy)
    if item.box is not None and replace(item, points=()).inside(area) is None:
        return item.box[:2]
    return next((xy for xy, _ in item.points if not is_in(xy, area)), None)


def in_region(
    asked: Sequence[AskedObject],
    path: Path,
    size_xy: tuple[int, int],
    region: tuple[int, int, int, int] | None,
    origin_xy: tuple[int, int] = (0, 0),
) -> list[AskedObject]:
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
            x, y = (np.floor(value - start) for value, start in zip(away, origin_xy, strict=True))
            what = f"has the prompt {item.name} outside, at {x:g}, {y:g}"
            remedy = f"give coordinates in its {size_xy[0]} x {size_xy[1]} pixels of level 0"
            raise SourceError(path, what, remedy)
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


def on_grid(asked: Sequence[AskedObject], grid: WorkingGrid) -> Iterator[AskedObject]:
    """Convert prompts from pixels of level 0 to pixels of the grid; see `in_region` for those outside."""
    for item in asked:
        box = None
        if item.box is not None:
            corners = grid.from_level0(np.array(item.box, np.float64).reshape(2, 2)).ravel().tolist()
            box = (corners[0], corners[1], corners[2], corners[3])
        moved = grid.from_level0(np.array([xy for xy, _ in item.points], np.float64).reshape(-1, 2)).tolist()
        points = tuple(((x, y), is_on) for (x, y), (_, is_on) in zip(moved, item.points, strict=True))
        yield replace(item, box=box, points=points)
