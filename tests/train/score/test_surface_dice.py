import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from train.score.surface_dice import outline, surface_dice

MASKS = arrays(bool, (7, 9))
NOTHING = np.zeros((7, 9), bool)


def _outline_by_definition(mask: np.ndarray, ignore: np.ndarray) -> set[tuple[int, int]]:
    height, width = mask.shape
    found: set[tuple[int, int]] = set()
    for y, x in np.argwhere(mask & ~ignore).tolist():
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]
        if any(not mask[place] and not ignore[place] for place in inside):
            found.add((y, x))
    return found


def _near(point: tuple[int, int], line: set[tuple[int, int]], tolerance_px: float) -> bool:
    return any(np.hypot(point[0] - y, point[1] - x) <= tolerance_px for y, x in line)


@given(MASKS, MASKS, arrays(bool, (7, 9)), st.sampled_from([0.0, 1.0, 1.5, 2.0, 5.0]))
@example(NOTHING, NOTHING, NOTHING, 1.0)
@example(~NOTHING, NOTHING, NOTHING, 1.0)
@example(NOTHING, ~NOTHING, NOTHING, 1.0)
def test_surface_dice_is_that_of_the_definition(
    predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray, tolerance_px: float
) -> None:
    ours, theirs = _outline_by_definition(predicted, ignore), _outline_by_definition(truth, ignore)
    near = sum(_near(p, theirs, tolerance_px) for p in ours) + sum(_near(p, ours, tolerance_px) for p in theirs)
    expected = near / (len(ours) + len(theirs)) if theirs else np.nan
    assert surface_dice(predicted, truth, ignore, tolerance_px) == pytest.approx(expected, nan_ok=True)


def test_the_tiles_edge_and_ignored_pixels_make_no_outline() -> None:
    mask, counts = np.zeros((20, 20), bool), np.ones((20, 20), bool)
    mask[:8, :12] = True
    counts[8:10] = False
    drawn = outline(mask, counts)
    # The object has an outline only on its right: the tile's edge is above and to the left, ignored pixels are below.
    assert {tuple(place) for place in np.argwhere(drawn).tolist()} == {(y, 11) for y in range(8)}


@pytest.mark.parametrize("shift", [1, 3, 8])
def test_a_shifted_square_agrees_from_that_tolerance_on(shift: int) -> None:
    truth, predicted, ignore = (np.zeros((64, 64), bool) for _ in range(3))
    truth[20:40, 20:40] = True
    predicted[20:40, 20 + shift : 40 + shift] = True
    assert surface_dice(predicted, truth, ignore, shift) == 1
    assert surface_dice(predicted, truth, ignore, shift - 0.5) < 1
    assert surface_dice(predicted, predicted, ignore, 0) == 1
