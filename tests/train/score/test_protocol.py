import pytest

from train.score.protocol import ScoringProtocol


def test_a_tolerance_shrinks_with_its_tile() -> None:
    protocol = ScoringProtocol("val", ("box",), tolerance_um=2.0)
    assert protocol.tolerance_px(0.25, (1.0, 1.0)) == pytest.approx(2.0 / 0.25)
    assert protocol.tolerance_px(0.25, (0.5, 0.125)) == pytest.approx(2.0 / 0.25 * 0.25)


def test_without_a_resolution_or_a_tolerance_outlines_are_not_compared() -> None:
    assert ScoringProtocol("val", ("box",), tolerance_um=2.0).tolerance_px(None, (1.0, 1.0)) is None
    assert ScoringProtocol("val", ("box",)).tolerance_px(0.25, (1.0, 1.0)) is None
