"""Find the 8-connected components of all classes of a label image in one pass.

A run is a stretch of pixels of one label in a row. A mask of tissue has about a hundred times fewer runs than pixels,
so components are found by joining runs. Axes: R runs, N components. Arrays are H, W; coordinates are x, y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.picture.decode import LabelArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Components:
    """The components of an image, numbered from 1: by class, then by the place of their first block of 2 x 2 pixels.

    That is the order in which OpenCV numbers the components of each class.

    Attributes:
        shape: H and W.
        run_starts: int64 (R,), index in reading order of the first pixel of each run.
        run_numbers: int32 (R,), the component of each run; 0 for other classes.
        codes: int64 (N,), the class of each component.
        area_px: int64 (N,), number of pixels.
        box_xyxy: int64 (N, 4), left, top, right and bottom, inclusive pixel indices.
        first_xy: int64 (N, 2), the first pixel in reading order.
    """

    shape: tuple[int, int]
    run_starts: Numbers
    run_numbers: NDArray[np.int32]
    codes: Numbers
    area_px: Numbers
    box_xyxy: Numbers
    first_xy: Numbers

    def at(self, x: Numbers, y: Numbers) -> NDArray[np.int32]:
        """Return the number of the component at each of some pixels; 0 for other classes."""
        runs = np.searchsorted(self.run_starts, y * self.shape[1] + x, side="right") - 1
        return self.run_numbers[runs]

    def numbered(self) -> NDArray[np.int32]:
        """Return the number of the component of each pixel, int32 (H, W); 0 for other classes."""
        lengths = np.diff(self.run_starts, append=self.shape[0] * self.shape[1])
        return np.repeat(self.run_numbers, lengths).reshape(self.shape)


def find_components(labels: LabelArray, classes: frozenset[int]) -> Components:
    """Find the components of the selected classes.

    Args:
        labels: uint8 or uint16 (H, W), the class of each pixel.
        classes: The codes whose components are found.
    """
    width = labels.shape[1]
    is_start = np.ones(labels.shape, np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=is_start[:, 1:])
    starts = np.flatnonzero(is_start)
    codes = labels.ravel()[starts]
    wanted = np.flatnonzero(np.isin(np.arange(np.iinfo(labels.dtype).max + 1), list(classes))[codes])
    lengths = np.diff(starts, append=labels.size)[wanted]
    row, left = np.divmod(starts[wanted], width)
    right = left + lengths - 1
    root = _joined(len(wanted), *_touching(codes[wanted], row, left, right, width))

    # Sort the runs by component; the sort is stable, so each component's first run in reading order comes first.
    by_root = np.argsort(root, kind="stable")
    firsts = np.flatnonzero(np.diff(root[by_root], prepend=-1))
    block = (row // 2 * (width // 2 + 1) + left // 2)[by_root]
    head = by_root[firsts]
    order = np.lexsort((_reduced(np.minimum, block, firsts), codes[wanted][head]))
    number_of_root = np.zeros(len(wanted), np.int32)
    number_of_root[root[head[order]]] = np.arange(1, len(head) + 1)
    run_numbers = np.zeros(len(starts), np.int32)
    run_numbers[wanted] = number_of_root[root]
    lowest, highest = np.minimum, np.maximum
    box = [(lowest, left), (lowest, row), (highest, right), (highest, row)]
    return Components(
        shape=labels.shape,
        run_starts=starts,
        run_numbers=run_numbers,
        codes=codes[wanted][head[order]].astype(np.int64),
        area_px=_reduced(np.add, lengths[by_root], firsts)[order],
        box_xyxy=np.stack([_reduced(of, values[by_root], firsts) for of, values in box], axis=-1)[order],
        first_xy=np.stack([left, row], axis=-1)[head[order]],
    )


def _reduced(function: np.ufunc, values: Numbers, firsts: Numbers) -> Numbers:
    return function.reduceat(values, firsts) if len(firsts) else values[:0]


def _touching(
    codes: NDArray[np.uint8 | np.uint16], row: Numbers, left: Numbers, right: Numbers, width: int
) -> tuple[Numbers, Numbers]:
    """Return the pairs of runs of one class that touch, also at a corner: a run, and one of the next row."""
    # Places in reading order, with room for a column before and after each row.
    pitch = width + 2
    below = (row + 1) * pitch
    first = np.searchsorted(row * pitch + right, below + left - 1)
    counts = np.searchsorted(row * pitch + left, below + right + 1, side="right") - first
    upper = np.repeat(np.arange(len(row)), counts)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    same = codes[upper] == codes[lower]
    return upper[same], lower[same]


def _joined(count: int, one: Numbers, other: Numbers) -> Numbers:
    """Return the lowest member of the group of each of `count` things, given the pairs that belong together."""
    root = np.arange(count)
    while len(one):
        ends = root[one], root[other]
        np.minimum.at(root, np.maximum(*ends), np.minimum(*ends))
        while not np.array_equal(root, further := root[root]):
            root = further
        apart = root[one] != root[other]
        one, other = one[apart], other[apart]
    return root
