"""Pack boolean masks to bits: eight pixels a byte along the last axis, the most significant bit first.

`numpy.packbits` and `numpy.unpackbits` do the same by default, so a reader with plain zarr needs one call.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BIT_ORDER = "big"


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack a mask.

    Args:
        mask: bool (..., W), where W is a multiple of 8.

    Returns:
        uint8 (..., W/8).

    Raises:
        ValueError: W is not a multiple of 8.
    """
    if mask.shape[-1] % 8:
        raise ValueError(f"the last axis has {mask.shape[-1]} pixels, which is not a multiple of 8")
    return np.packbits(mask, axis=-1)


def unpack_mask(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Unpack a mask.

    Args:
        packed: uint8 (..., W/8).

    Returns:
        bool (..., W).
    """
    # unpackbits returns the bytes 0 and 1, and a boolean array stores the same bytes, so a view needs no copy.
    return np.unpackbits(packed, axis=-1).view(np.bool_)
