"""Refine the outline of a coarse mask at full resolution, window by window, with the mask as a prompt.

Pixels farther from the outline stay as they are, because a small window shows too little of a large object.

Coordinates are x, y in pixels of the grid; arrays are H, W.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from train.model.predictor import MaskPredictor
from train.predict.settings import PromptOptions
from train.predict.window import Window
from train.predict.window_prediction import as_prompt, predict_window
from train.results.found_object import FoundObject
from train.slide.working_grid import WorkingGrid

REFINE_LOGIT = 10.0
"""Logit of the pixels of a coarse mask that is used as a prompt."""


def refined(
    predictor: MaskPredictor, grid: WorkingGrid, coarse: FoundObject, seen: Window, options: PromptOptions
) -> FoundObject:
    """Predict again at full resolution, window by window, along the outline of a coarse mask.

    Args:
        predictor: The model.
        grid: The image.
        coarse: The object as predicted in a wide window.
        seen: That window.
        options: Settings of the prediction.
    """
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
    return FoundObject.from_mask(mask, (left, top), coarse.iou, coarse.stability) or coarse


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
    _, masks, _ = predict_window(predictor, views, [as_prompt(box, [], side)], side, options.threshold, logits)
    return masks[0]
