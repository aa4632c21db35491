"""Measure how well outlines agree: normalized surface Dice at several tolerances.

An object may go on beyond the tile's edge and below ignored pixels. So an outline pixel that lies within the tolerance
of an edge or of an ignored pixel counts neither as agreeing nor as missing, in truth and prediction alike.

Axes: H and W pixels, Q tolerances.
Source: Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy, 2018.
They define the measure on surface elements; here it is computed on the pixels of outlines.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)

_ROUNDING_UM = 1e-3
"""Distances in float32 may exceed the exact ones by a rounding error."""


@dataclass(frozen=True)
class OutlineRule:
    """How outlines are compared.

    Attributes:
        tolerances_um: The Q distances up to which outlines agree, in micrometers.
        spacing_xy_um: Distance between neighboring pixels of the tile along x and y, in micrometers.
    """

    tolerances_um: tuple[float, ...]
    spacing_xy_um: tuple[float, float]

    def distance_um(self, far: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Return the distance of each pixel to the next pixel that is not `far`, (H, W)."""
        x_um, y_um = self.spacing_xy_um
        if x_um != y_um:
            return np.asarray(ndimage.distance_transform_edt(far, sampling=(y_um, x_um)))
        # Ten times as fast, but for square pixels alone.
        return np.asarray(cv2.distanceTransform(far.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)) * x_um

    def depth_um(self, ignore: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Return the distance of each pixel to the next ignored pixel or pixel beyond the tile's edge, (H, W)."""
        return self.distance_um(np.pad(~ignore, 1))[1:-1, 1:-1]


def outline(mask: NDArray[np.bool_], counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask's pixels that touch a pixel outside the mask which is not ignored.

    Args:
        mask: bool (H, W), the mask.
        counts: bool (H, W), False for ignored pixels.

    Returns:
        bool (H, W), True on the outline.
    """
    beyond = cv2.dilate((counts & ~mask).view(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & counts & beyond.astype(bool)


def surface_dice(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    ignore: NDArray[np.bool_],
    rule: OutlineRule,
    depth_um: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Compute the share of the pixels of both outlines that lie within a tolerance of the other outline.

    Args:
        predicted: bool (H, W), the predicted mask.
        truth: bool (H, W), the true mask.
        ignore: bool (H, W), True for pixels that are left out.
        rule: Tolerances and spacing.
        depth_um: `rule.depth_um(ignore)`, if it is known already.

    Returns:
        float64 (Q,), the share at each tolerance, 0 to 1. NaN if the truth has no outline that counts, for example
        because the object fills the tile: then its end is unknown. This depends on the truth alone, so every model is
        scored on the same objects.
    """
    nothing = np.full(len(rule.tolerances_um), np.nan)
    if not truth.any():
        return nothing
    window = _window(predicted | truth)
    counts = ~ignore[window]
    depth = (rule.depth_um(ignore) if depth_um is None else depth_um)[window]
    ours, theirs = outline(predicted[window], counts), outline(truth[window], counts)
    if not theirs.any():
        return nothing
    # Distance to the other outline and depth of each outline pixel; both outlines in a row.
    apart = np.concatenate([_distances(ours, theirs, rule), _distances(theirs, ours, rule)])
    depths = np.concatenate([depth[ours], depth[theirs]])
    is_true = np.arange(len(depths)) >= np.count_nonzero(ours)
    shares: list[float] = []
    for tolerance_um in rule.tolerances_um:
        kept = depths > tolerance_um + _ROUNDING_UM
        near = kept & (apart <= tolerance_um + _ROUNDING_UM)
        shares.append(float(near.sum() / kept.sum()) if (kept & is_true).any() else np.nan)
    return np.array(shares)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the bounding box of a mask plus one pixel on each side; outlines in it equal those in the whole tile."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _distances(line: NDArray[np.bool_], other: NDArray[np.bool_], rule: OutlineRule) -> NDArray[np.floating]:
    """Return the distance of each pixel of a line to the other line; infinite if that is empty."""
    if not other.any():
        return np.full(np.count_nonzero(line), np.inf)
    return rule.distance_um(~other)[line]
