"""Files of every kind, changed towards code that was not reached yet: read or refused, as drawn ones are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.forms import LONG_TIMEOUT_S

pytest.importorskip("atheris", reason="atheris is not installed: it has wheels for Linux on x86-64 up to Python 3.13")

ROOT = Path(__file__).parents[2]
LONG = (pytest.mark.faults, pytest.mark.timeout(LONG_TIMEOUT_S))
FAST = (
    *("image", "settings", "class_map_json", "class_map_tsv", "split_file", "checkpoint"),
    *("case_table", "annotation_json", "annotation_yolo"),
)
FORMS = [
    # A start takes longer than some hundred inputs, so the short form has the two kinds that are most of all input.
    *(pytest.param(target, 200, id=f"{target}-short") for target in ("image", "store")),
    *(pytest.param(target, 100_000, id=f"{target}-long", marks=LONG) for target in FAST),
    pytest.param("store", 10_000, id="store-long", marks=LONG),
]


@pytest.mark.parametrize(("target", "inputs"), FORMS)
def test_files_found_by_coverage_are_read_or_refused(target: str, inputs: int, tmp_path: Path, tally) -> None:
    command = [sys.executable, "-m", "tests.faults.fuzz", target, str(tmp_path / "fuzz"), "--inputs", str(inputs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["tried"] == inputs
    # All of a checkpoint's weights but two are left out, so that it is refused after everything else was read.
    assert counts["used"] or target == "checkpoint"
    tally(f"hostile by coverage: {target.replace('_', ' ')}", **counts)
