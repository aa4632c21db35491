from dataclasses import replace

import pytest

from schemas.store.store import Store
from train.score.protocol import ScoringProtocol
from train.score.surface_dice import CURVE_UM


def test_outlines_are_compared_in_micrometers_along_each_axis(store: Store) -> None:
    record = replace(store[0], scale_xy=(0.5, 0.125))
    outlines = ScoringProtocol("val", ("box",), tolerance_um=3.0).outlines(record, 0.25)
    assert outlines is not None
    assert outlines.tolerances_um == (3.0, *CURVE_UM)
    # A tile pixel stands for two source pixels along x, and for eight along y.
    assert outlines.spacing_xy_um == pytest.approx((0.5, 2.0))


def test_outlines_are_not_compared_without_resolution_or_tolerance(store: Store) -> None:
    assert ScoringProtocol("val", ("box",), tolerance_um=2.0).outlines(store[0], None) is None
    assert ScoringProtocol("val", ("box",)).outlines(store[0], 0.25) is None
