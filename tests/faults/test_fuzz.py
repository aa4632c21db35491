"""Test files that fuzzing by coverage finds: like randomly drawn files, each must be read or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.forms import LONG_TIMEOUT_S

pytest.importorskip("atheris", reason="atheris is not installed: it has wheels for Linux on x86-64 up to Python 3.13")

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.faults, pytest.mark.timeout(LONG_TIMEOUT_S)]
FAST = (
    *("image", "settings", "class_map_json", "class_map_tsv", "split_file", "checkpoint"),
    *("case_table", "annotation_json", "annotation_yolo", "prompt_json", "prompt_table"),
)
# Starting takes longer than some hundred inputs, so there is no short form.
FORMS = [*((target, 100_000) for target in FAST), ("store", 10_000)]


@pytest.mark.parametrize(("target", "inputs"), FORMS)
def test_files_found_by_coverage_are_read_or_refused(target: str, inputs: int, tmp_path: Path, tally) -> None:
    command = [sys.executable, "-m", "tests.faults.fuzz", target, str(tmp_path / "fuzz"), "--inputs", str(inputs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["tried"] == inputs
    # The checkpoint lacks all weights except two, so it is refused, but only after everything else was read.
    assert counts["used"] or target == "checkpoint"
    tally(f"hostile by coverage: {target.replace('_', ' ')}", **counts)
