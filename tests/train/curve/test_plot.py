"""The plot of a curve: each line can be told from the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from train.curve.plot import write_plot

STARTS = ("baseline:zero_shot", "baseline:untrained")
BASELINES = ("baseline:box", "baseline:image", "baseline:disc")


def _curve(starts: tuple[str, ...]) -> dict[str, Any]:
    scores = {"box": {"dice": 0.5, "ci95": None, "patients": 3}}
    return {
        "measure": "Dice, class mean",
        "split": "test",
        "points": [{"patients": count, "scores": scores} for count in (1, 5)],
        "start": dict.fromkeys(starts, scores),
        "baselines": dict.fromkeys(BASELINES, scores),
        "oracles": {"baseline:image": ["box"]},
    }


@pytest.mark.parametrize("starts", [STARTS, STARTS[1:], ()])
def test_no_two_lines_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: tuple[str, ...]) -> None:
    drawn: dict[str, tuple[object, object]] = {}
    plain = Axes.axhline

    def note(axes: Axes, y: float, **look: Any) -> Any:
        drawn[look["label"]] = look["color"], look.get("linestyle", "-")
        return plain(axes, y, **look)

    monkeypatch.setattr(Axes, "axhline", note)
    write_plot(tmp_path / "curve.png", _curve(starts))
    # A baseline that sees more of the truth than the prompt gives has no line.
    start = [f"start ({name.partition(':')[2]})" for name in starts[:1]]
    assert list(drawn) == [*start, *starts[1:], "baseline:box", "baseline:disc"]
    assert len(set(drawn.values())) == len(drawn)
    assert [label for label, (_, line) in drawn.items() if line == "-"] == start
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
