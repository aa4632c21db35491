"""Packing of boolean masks, eight pixels a byte along the last axis, most significant bit first.

This is what `numpy.packbits` and `numpy.unpackbits` do by default, so that a reader with plain zarr needs one call.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BIT_ORDER = "big"


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack a boolean array (..., W) to uint8 (..., W/8); W must be a multiple of 8."""
    if mask.shape[-1] % 8:
        raise ValueError(f"the last axis has {mask.shape[-1]} pixels, which is not a multiple of 8")
    return np.packbits(mask, axis=-1)


def unpack_mask(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Unpack uint8 (..., W/8) to a boolean array (..., W)."""
    # unpackbits yields the bytes 0 and 1, which is what a boolean array is made of: no copy.
    return np.unpackbits(packed, axis=-1).view(np.bool_)
