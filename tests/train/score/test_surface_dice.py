import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from train.score.surface_dice import CURVE_UM, TileOutlines, outline

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


def _near(
    point: tuple[int, int], line: set[tuple[int, int]], tolerance_um: float, spacing: tuple[float, float]
) -> bool:
    x_um, y_um = spacing
    return any(np.hypot((point[0] - y) * y_um, (point[1] - x) * x_um) <= tolerance_um + 1e-9 for y, x in line)


def _counts(point: tuple[int, int], ignore: np.ndarray, tolerance_um: float, spacing: tuple[float, float]) -> bool:
    """Whether a pixel is farther than the tolerance from all ignored pixels and all pixels beyond the edge."""
    height, width = ignore.shape
    around = [(y, x) for y in range(-1, height + 1) for x in range(-1, width + 1)]
    gone = {(y, x) for y, x in around if not (0 <= y < height and 0 <= x < width) or ignore[y, x]}
    return not _near(point, gone, tolerance_um, spacing)


@given(
    MASKS, MASKS, arrays(bool, (7, 9)), st.sampled_from([0.0, 1.0, 1.5, 2.0]), st.sampled_from([(1.0, 1.0), (0.5, 0.8)])
)
@example(NOTHING, NOTHING, NOTHING, 1.0, (1.0, 1.0))
@example(~NOTHING, NOTHING, NOTHING, 1.0, (1.0, 1.0))
@example(NOTHING, ~NOTHING, NOTHING, 1.0, (1.0, 1.0))
def test_surface_dice_is_that_of_the_definition(
    predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray, tolerance_um: float, spacing: tuple[float, float]
) -> None:
    ours, theirs = _outline_by_definition(predicted, ignore), _outline_by_definition(truth, ignore)
    kept = [{p for p in line if _counts(p, ignore, tolerance_um, spacing)} for line in (ours, theirs)]
    near = sum(_near(p, theirs, tolerance_um, spacing) for p in kept[0])
    near += sum(_near(p, ours, tolerance_um, spacing) for p in kept[1])
    expected = near / (len(kept[0]) + len(kept[1])) if kept[1] else np.nan
    found, *_ = TileOutlines(ignore, spacing, tolerance_um).surface_dice(predicted, truth)
    assert found == pytest.approx(expected, nan_ok=True)


def _at(predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray, tolerance_um: float) -> float:
    return TileOutlines(ignore, (1.0, 1.0), tolerance_um).surface_dice(predicted, truth)[0]


def test_prediction_that_stops_a_pixel_before_the_edge_agrees() -> None:
    truth, predicted, ignore = (np.zeros((100, 100), bool) for _ in range(3))
    truth[:, :60] = True
    predicted[1:-1, 1:60] = True
    assert _at(predicted, truth, ignore, 2.0) == 1
    # The same before ignored pixels.
    ignore[:, :20] = True
    predicted[:, :] = False
    predicted[:, 21:60] = True
    assert _at(predicted, truth, ignore, 2.0) == 1
    # An outline in the middle of the tile is missing all the same.
    predicted[:, 50:] = False
    assert _at(predicted, truth, ignore, 2.0) < 0.1


def test_pixels_that_are_not_square_have_two_spacings() -> None:
    truth, predicted, ignore = (np.zeros((64, 64), bool) for _ in range(3))
    truth[20:40, 20:40] = True
    for shift, tolerance_um in (((0, 3), 1.5), ((3, 0), 6.0)):
        predicted[:] = np.roll(truth, shift, (0, 1))
        at, below = (
            TileOutlines(ignore, (0.5, 2.0), limit_um).surface_dice(predicted, truth)[0]
            for limit_um in (tolerance_um, tolerance_um - 0.25)
        )
        assert at == 1
        assert below < 1


def test_the_curve_has_the_scores_of_its_tolerances() -> None:
    truth, predicted, ignore = (np.zeros((128, 128), bool) for _ in range(3))
    truth[40:80, 40:80] = True
    predicted[40:80, 52:92] = True
    _, *curve = TileOutlines(ignore, (1.0, 1.0), 0.0).surface_dice(predicted, truth)
    assert curve == [_at(predicted, truth, ignore, tolerance_um) for tolerance_um in CURVE_UM]
    assert curve == sorted(curve)
    assert curve[0] < curve[-1] == 1


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
    assert _at(predicted, truth, ignore, shift) == 1
    assert _at(predicted, truth, ignore, shift - 0.5) < 1
    assert _at(predicted, predicted, ignore, 0) == 1
