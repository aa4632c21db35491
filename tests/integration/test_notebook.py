"""The notebook of the tutorial runs as it stands, and its outputs are kept without the paths of a machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
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


def test_its_outputs_are_kept_small_and_name_no_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < MAX_BYTES
    cells: list[Any] = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    # Only the first cell, which defines a function, prints nothing.
    assert [bool(cell["outputs"]) for cell in cells] == [False] + [True] * (len(cells) - 1)
    printed = "".join(str(out.get("text", "")) for cell in cells for out in cell["outputs"])
    assert not re.findall(r"(?<![\w.])/(?:tmp|home|root|work|usr|var|Users)\b", printed)
    assert "run/best" in printed
