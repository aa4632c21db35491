import pytest

from train.score.protocol import CURVE_UM, ScoringProtocol


def test_outlines_are_compared_in_micrometers_along_each_axis() -> None:
    rule = ScoringProtocol("val", ("box",), tolerance_um=3.0).outline_rule(0.25, (0.5, 0.125))
    assert rule is not None
    assert rule.tolerances_um == (3.0, *CURVE_UM)
    # A tile pixel stands for two source pixels along x, and for eight along y.
    assert rule.spacing_xy_um == pytest.approx((0.5, 2.0))


def test_outlines_are_not_compared_without_resolution_or_tolerance() -> None:
    assert ScoringProtocol("val", ("box",), tolerance_um=2.0).outline_rule(None, (1.0, 1.0)) is None
    assert ScoringProtocol("val", ("box",)).outline_rule(0.25, (1.0, 1.0)) is None
