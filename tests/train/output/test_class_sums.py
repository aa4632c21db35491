"""The sums that are kept give what a plane for each class gives."""

import numpy as np
import pytest

from schemas.errors import StoreError
from train.output import class_sums
from train.output.class_sums import ClassSums, SumsMemory


@pytest.mark.parametrize("alone_share", [0.0, 0.5, 1.0])
def test_best_is_that_of_a_plane_for_each_class(alone_share: float) -> None:
    generator = np.random.default_rng(0)
    dense = np.zeros((6, 150, 210), np.float16)
    # Values are added once where a pixel is alone, and twice elsewhere.
    alone = generator.random(dense.shape[1:]) < alone_share
    sums = ClassSums(SumsMemory("roi"), alone)
    windows = [(0, 0, 150, 210), (3, 60, 130, 150)]
    for number, (top, left, height, width) in enumerate(windows):
        for place in range(1, 6):
            # Few values, so that classes tie and most are zero.
            values = generator.choice([0, 0, 0, 0.25, 0.5], (height, width)).astype(np.float16)
            if number:
                values[alone[top : top + height, left : left + width]] = 0
            sums.add(place, values, top, left)
            dense[place, top : top + height, left : left + width] += values
    places, best = sums.best()
    np.testing.assert_array_equal(places, dense.argmax(0))
    np.testing.assert_array_equal(best, dense.max(0))


def test_sums_beyond_the_bound_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_sums, "MAX_SUMS_BYTES", 3 * 64 * 64 * 2)
    values, memory = np.ones((64, 64), np.float16), SumsMemory("roi")
    # The bands of a ROI share the bound, and memory that a finished band gives back can be taken again.
    first, second = (ClassSums(memory, np.zeros((64, 64), bool)) for _ in range(2))
    first.add(0, values, 0, 0)
    memory.give_back(first.size_bytes)
    for place in range(3):
        second.add(place, values, 0, 0)
    with pytest.raises(StoreError, match="roi: needs more than 0 GiB of memory to be stitched"):
        first.add(1, values, 0, 0)
