"""Predict the prompted objects, each in a window around it.

The window has at least the size of the training tiles; see `train.predict.window`. A wider one is read at a lower
resolution. An object that was prompted only by clicks and reaches the edge of its window is predicted again in a wider
one. The outline from a wide window is then refined; see `train.predict.refine`.

Coordinates are x, y in pixels of the grid; arrays are H, W.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from train.model.predictor import MaskPredictor
from train.predict.refine import refined
from train.predict.settings import PromptOptions
from train.predict.window import WIDEST_PX, Window, window_of
from train.predict.window_prediction import as_prompt, predict_window
from train.prompts.object_prompt import ObjectPrompt
from train.results.found_object import FoundObject
from train.slide.working_grid import WorkingGrid

logger = logging.getLogger(__name__)

TOO_LARGE_REMEDY = "work at a lower resolution (--mpp)"


def predict_prompted(
    predictor: MaskPredictor,
    grid: WorkingGrid,
    asked: Sequence[ObjectPrompt],
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
        pixels += min(window.side, grid.size_xy[0]) * min(window.side, grid.size_xy[1])
        if on_window:
            on_window(done, len(asked), pixels)
    return found


def _ask_window(
    predictor: MaskPredictor, grid: WorkingGrid, window: Window, asked: Sequence[ObjectPrompt], options: PromptOptions
) -> list[FoundObject | None]:
    """Predict objects in one window; a wide window is read at lower resolution, and its masks are enlarged."""
    factor = options.window_px / window.side
    prompts = [_in_window(item, window, factor, options.window_px) for item in asked]
    views = predictor.views(grid.read(window.left, window.top, window.side, options.window_px), all_eight=options.tta)
    ious, masks, stability = predict_window(predictor, views, prompts, options.window_px, options.threshold)
    found: list[FoundObject | None] = []
    for iou, mask, stable in zip(ious.tolist(), masks, stability.tolist(), strict=True):
        if window.side != options.window_px:
            size = (window.side, window.side)
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
        found.append(_clipped(mask, window, grid, iou, stable))
    return found


def _in_window(item: ObjectPrompt, window: Window, factor: float, side: int) -> tuple[list[list[float]], list[int]]:
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
    return FoundObject.from_mask(inside, (window.left, window.top), iou, stability)


def _widened(
    predictor: MaskPredictor,
    grid: WorkingGrid,
    window: Window,
    item: ObjectPrompt,
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
        wider = window_of(item.extent, grid.size_xy, side)
        window = Window(wider.left, wider.top, side)
        (found,) = _ask_window(predictor, grid, window, [item], options)
    if found is None or window.side == options.window_px:
        return found
    return refined(predictor, grid, found, window, options)


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
