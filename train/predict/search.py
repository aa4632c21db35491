"""Search an image for all its objects, window by window. Memory use does not grow with the image.

Coordinates are x, y in pixels of the grid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from train.model.predictor import MaskPredictor
from train.predict.automatic import AutomaticOptions, CandidateCounts, find_all
from train.predict.seams import SeamJoiner, in_order
from train.predict.window_rows import WindowRows
from train.results.found_object import Box, FoundObject
from train.runtime.read_ahead import read_ahead
from train.slide.tissue import TissueMask
from train.slide.working_grid import WorkingGrid

logger = logging.getLogger(__name__)

OVERLAP = 0.25
"""Share of a window that the next window also shows."""


@dataclass(frozen=True)
class SearchProgress:
    """The progress of a search.

    Attributes:
        done: Number of finished windows.
        total: Number of all windows.
        pixels: Number of pixels in the finished windows.
    """

    done: int
    total: int
    pixels: int


def starts(length_px: int, side_px: int, overlap: float) -> list[int]:
    """Return the starts of the windows along one axis; the last window ends at the edge of the image.

    Args:
        length_px: Length of the image along the axis.
        side_px: Side of a window.
        overlap: Share of a window that the next window also shows.
    """
    last = max(length_px - side_px, 0)
    step = max(round(side_px * (1 - overlap)), 1)
    return [*range(0, last, step), last]


def search(
    predictor: MaskPredictor,
    grid: WorkingGrid,
    window_px: int,
    options: AutomaticOptions,
    overlap: float = OVERLAP,
    *,
    tta: bool = False,
    readers: int = 1,
    rows: WindowRows | None = None,
    on_window: Callable[[SearchProgress], None] | None = None,
) -> Iterator[FoundObject]:
    """Find all objects of an image, by row of windows from top to bottom; in a row, the largest comes first.

    Args:
        predictor: The model.
        grid: The image.
        window_px: Side of a window in pixels of the grid.
        options: Settings of the search within a window.
        overlap: Share of a window that the next window also shows.
        tta: Whether logits are averaged over the eight flips and rotations.
        readers: Number of threads that read windows ahead.
        rows: Files that keep the objects of finished rows of windows, so that an interrupted search can continue; None
            keeps nothing.
        on_window: Function called after each window.

    Yields:
        The objects, each as soon as no later window can extend it.
    """
    tops, lefts = starts(grid.size_xy[1], window_px, overlap), starts(grid.size_xy[0], window_px, overlap)
    # Somebody chose what an image shows, and colors tell nothing in a gray one, so an image is searched everywhere.
    tissue = TissueMask(grid) if grid.source.is_slide else None
    if tissue is not None:
        empty = sum(not tissue.window(left, top, window_px).any() for top in tops for left in lefts)
        logger.info("%s: windows without tissue, which are not searched: %d", grid.source.path, empty)
    # With a single window there is nothing to join, so the result equals that of SAM 2's own rules. But candidates that
    # differ only beyond the edges of a smaller image are the same object.
    has_seams = len(tops) * len(lefts) > 1 or window_px > min(grid.size_xy)
    joiner = SeamJoiner(grid.size_xy, windows_overlap=overlap > 0)
    done, counts = 0, CandidateCounts()

    def large(objects: list[FoundObject]) -> list[FoundObject]:
        # A small part may belong to a large object, so nothing is left out before the parts are joined.
        return [item for item in objects if item.area_px * grid.level0_px >= options.min_area_px]

    with ThreadPoolExecutor(max(readers, 1)) as pool:
        for number, top in enumerate(tops):
            kept = rows.load(number) if rows else None
            if kept is None:
                origins = [(left, top) for left in lefts]
                windows = read_ahead(pool, partial(_pixels, grid, window_px, tissue), origins, readers)
                found = (_in_window(predictor, grid, *window, options, tta=tta) for window in windows)
            else:
                found = ((objects, CandidateCounts()) for objects in kept)
            found_in_row: list[list[FoundObject]] = []
            for left, (objects, left_out) in zip(lefts, found, strict=True):
                counts += left_out
                found_in_row.append(objects)
                if has_seams:
                    joiner.add(_shown((left, top), window_px, grid), objects)
                done += 1
                if on_window:
                    on_window(SearchProgress(done, len(tops) * len(lefts), done * window_px * window_px))
            if rows and kept is None:
                rows.save(number, found_in_row)
            if number + 1 < len(tops):
                yield from large(joiner.finished_above(tops[number + 1]))
            elif not has_seams:
                yield from large(in_order(found_in_row[0]))
    yield from large(joiner.close())
    if counts.total:
        _log_counts(grid, counts, options)


def _log_counts(grid: WorkingGrid, counts: CandidateCounts, options: AutomaticOptions) -> None:
    """Say how many candidates each threshold left out, so that one knows which to change if objects are missing."""
    logger.info(
        "%s: %d candidate masks, of which %d have an IoU estimate of at most %g (--iou-threshold), and %d others "
        "have a stability below %g (--stability-threshold)",
        grid.source.path,
        counts.total,
        counts.unlikely,
        options.iou_threshold,
        counts.unstable,
        options.stability_threshold,
    )


def _shown(origin_xy: tuple[int, int], side: int, grid: WorkingGrid) -> Box:
    """Return the part of the grid that a window shows."""
    (left, top), (width, height) = origin_xy, grid.size_xy
    return left, top, min(left + side, width), min(top + side, height)


def _pixels(
    grid: WorkingGrid, side: int, tissue: TissueMask | None, origin_xy: tuple[int, int]
) -> NDArray[np.uint8] | None:
    """Read the pixels of a window, uint8 (side, side, 3); None if it has no tissue."""
    if tissue is not None and not tissue.window(*origin_xy, side).any():
        return None
    return grid.read(*origin_xy, side)


def _in_window(
    predictor: MaskPredictor,
    grid: WorkingGrid,
    origin_xy: tuple[int, int],
    pixels: NDArray[np.uint8] | None,
    options: AutomaticOptions,
    *,
    tta: bool,
) -> tuple[list[FoundObject], CandidateCounts]:
    if pixels is None:
        return [], CandidateCounts()
    (left, top), side = origin_xy, len(pixels)
    views = predictor.views(pixels, all_eight=tta)
    found: list[FoundObject] = []
    width, height = grid.size_xy
    objects, counts = find_all(predictor, views, side, origin_xy, options)
    for item in objects:
        # A window may be larger than its image.
        clipped = FoundObject.from_mask(item.within((left, top, width, height)), origin_xy, item.iou, item.stability)
        if clipped is not None:
            found.append(clipped)
    return found, counts
