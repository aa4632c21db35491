"""The notebook of the tutorial runs as it stands, and its outputs are kept without the paths of a machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest

from tests.warm_commands import warm_commands

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
MAX_BYTES = 500_000


def _kinds(path: Path) -> list[list[str]]:
    """Return for each code cell the kinds of its outputs: text, pictures and errors."""
    cells: list[Any] = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [
        sorted({kind for out in cell["outputs"] for kind in out.get("data", {out["output_type"]: 0})}) for cell in cells
    ]


def _first_words(path: Path) -> list[list[str]]:
    """Return for each code cell the first word of each line that it printed, and the first two of each log line.

    Left out are colors, numbers, progress bars, and the lines of epochs, which are more in a longer training.
    """
    found: list[list[str]] = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "\n".join("".join(out.get("text", ())) for out in cell.get("outputs", ()))
        lines = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
        words = [line.split()[: 2 if line.startswith("bcss-") else 1] for line in lines if line.strip()]
        said = (" ".join(own) for own in words if not own[0].isdigit() and own[0] not in ("fit:", "predict:", "No"))
        found.append([word for word in said if word != "bcss-train: epoch"])
    return found


@pytest.mark.timeout(400)
def test_it_runs(tmp_path: Path) -> None:
    # The training stops after two steps, and all else is as a reader sees it.
    command = [sys.executable, "-m", "docs.notebook", "--quick", str(tmp_path / "run.ipynb")]
    with warm_commands(tmp_path) as programs:
        command += ["--programs", str(programs)]
        done = subprocess.run(command, cwd=NOTEBOOK.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kinds = _kinds(tmp_path / "run.ipynb")
    assert "error" not in {kind for found in kinds for kind in found}
    assert [kind for found in kinds for kind in found if kind == "image/jpeg"] == ["image/jpeg"] * 4
    # The kept outputs are those of the same cells.
    assert kinds == _kinds(NOTEBOOK)
    assert _first_words(tmp_path / "run.ipynb") == _first_words(NOTEBOOK)


def test_fine_tuning_has_helped_in_its_outputs() -> None:
    printed = [cell["outputs"] for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    texts = ["".join(out.get("text", "")) for outputs in printed for out in outputs]
    (scores,) = (text for text in texts if text.startswith("run/best "))
    dice = {line.split()[0]: literal_eval(line.partition(" ")[2].strip()) for line in scores.splitlines()}
    own = dice.pop("run/best")
    assert {"baseline:zero_shot", "baseline:untrained", "baseline:box", "baseline:disc"} <= dice.keys()
    for name, by_prompt in dice.items():
        assert all(float(own[kind]) > float(value) for kind, value in by_prompt.items()), name


def test_its_outputs_are_kept_small_and_name_no_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < MAX_BYTES
    cells: list[Any] = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    # Only the first cell, which defines a function, prints nothing.
    assert [bool(cell["outputs"]) for cell in cells] == [False] + [True] * (len(cells) - 1)
    printed = "".join(str(out.get("text", "")) for cell in cells for out in cell["outputs"])
    assert not re.findall(r"(?<![\w.])/(?:tmp|home|root|work|usr|var|Users)\b", printed)
    assert "run/best" in printed
