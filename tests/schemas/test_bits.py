import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.bits import pack_mask, unpack_mask


@given(arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4).map(lambda n: 8 * n))))
def test_unpacking_undoes_packing(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack_mask(pack_mask(mask)), mask)


def test_first_pixel_is_the_highest_bit() -> None:
    mask = np.zeros((1, 8), bool)
    mask[0, 0] = True
    assert pack_mask(mask).tolist() == [[128]]


def test_width_must_fill_bytes() -> None:
    with pytest.raises(ValueError, match="9 pixels"):
        pack_mask(np.zeros((4, 9), bool))
