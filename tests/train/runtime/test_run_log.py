"""The log of a resumed run keeps the whole lines of the steps before."""

from __future__ import annotations

import json
from pathlib import Path

from train.runtime.run_log import METRICS_FILE, EpochSums, RunLog


def _step(step: int, **changes: object) -> str:
    return json.dumps({"step": step, "epoch": 2, "loss": 0.5, "step_s": 4.0, **changes})


def test_lines_that_a_kill_broke_and_those_of_later_steps_are_removed(tmp_path: Path) -> None:
    event = json.dumps({"event": "epoch", "step": 1, "epoch": 1, "val": None})
    whole = [_step(1, epoch=1), event, _step(2), _step(3, loss=0.25)]
    broken = [
        "",
        "null",
        "3",
        '"step"',
        "[1]",
        _step(2)[:-9],
        json.dumps({"step": 2, "step_s": 4.0}),
        json.dumps({"step": 2, "epoch": 2, "loss": 0.5}),
        _step(2, loss="0.5"),
        json.dumps({"event": "epoch"}),
    ]
    path = tmp_path / METRICS_FILE
    path.write_text("\n".join([*whole[:2], *broken, *whole[2:], _step(4)]))
    with RunLog(tmp_path, 3) as log:
        assert log.sums == EpochSums(epoch=2, steps=2, loss=0.75, seconds=8.0)
    assert path.read_text() == "".join(f"{line}\n" for line in whole)
