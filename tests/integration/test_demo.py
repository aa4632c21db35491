"""`make demo` ends with a fine-tuned model that is better than its start and than every baseline."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.pages import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demonstration_convinces(tmp_path: Path) -> None:
    # The commands are those of the Makefile, run with the programs of this environment in a folder of their own.
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("constraints.txt", "requirements-sam2.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv" / ".ready").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["make", "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"picture +demo/evaluation/overlays\.png\n$", done.stdout)
    numbers = json.loads((tmp_path / "demo" / "evaluation" / "metrics.json").read_text())
    dice = {
        name: {kind: scores["overall"]["class_mean"]["dice"]["value"] for kind, scores in kinds.items()}
        for name, kinds in numbers["models"].items()
    }
    own = dice.pop("run/best")
    assert dice.keys() == {f"baseline:{name}" for name in ("zero_shot", "untrained", "box", "image", "disc")}
    for name, by_kind in dice.items():
        for kind, value in by_kind.items():
            assert own[kind] > value, (name, kind)
    # With a click, the difference is clear.
    assert own["centroid"] > dice["baseline:zero_shot"]["centroid"] + 0.04
    # Its own start and the best fair baseline, under two prompts.
    assert len(numbers["paired"]) == 4
    assert numbers["protocol"]["overlays_show"] == "run/best"
    assert numbers["protocol"]["overlays_beside"] == ["baseline:zero_shot"]
