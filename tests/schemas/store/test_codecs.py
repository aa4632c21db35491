from typing import get_args

import numpy as np
import pytest

from schemas.codec_names import CodecName
from schemas.store.codecs import IMAGE_CODECS, ROW_CODECS


def test_every_name_has_its_codec() -> None:
    assert tuple(IMAGE_CODECS) == get_args(CodecName)


@pytest.mark.parametrize("number", range(len(ROW_CODECS)))
def test_row_comes_back_as_it_was(number: int) -> None:
    codec = ROW_CODECS[number]
    if codec is IMAGE_CODECS["small"]:
        pytest.importorskip("imagecodecs", reason="the small extra is not installed")
    # A transposed view: its pixels must be encoded, not its memory in order.
    row = np.random.default_rng(0).integers(0, 9, (3, 32, 24), np.uint8).T
    chunk = codec.encode(row)
    found = np.empty(row.shape, np.uint8)
    codec.decode(chunk if codec.has_checksum else chunk[:-4], found)
    np.testing.assert_array_equal(found, row)
