import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from schemas.store.store import open_store
from tests.programs import run_prep


def test_sample_then_build(tmp_path: Path, monkeypatch, capsys) -> None:
    assert run_prep(monkeypatch, "sample", tmp_path / "src", "--rois", 3, "--size", 128) == 0
    out = tmp_path / "s.zarr"
    assert run_prep(monkeypatch, "build", tmp_path / "src", "--out", out, "--size", 64, "--workers", 1) == 0
    assert f"{out}: {len(open_store(out))} tiles" in capsys.readouterr().out


def test_names_with_brackets_and_escapes_are_shown_as_text(write_roi, tmp_path: Path, monkeypatch, capsys) -> None:
    source = write_roi("a[b]", np.full((40, 40), 1, np.uint8))
    write_roi("c[d]", np.full((40, 40), 9, np.uint8))
    names = tmp_path / "names.json"
    names.write_text(json.dumps([{"code": 1, "name": "[/tumor]:skull:\x1b[2J"}, {"code": 9}]))
    out = tmp_path / "b[old]" / "s.zarr"
    arguments = ("--class-map", names, "--classes", 1, "--size", 64, "--workers", 1)
    assert run_prep(monkeypatch, "build", source, "--out", out, *arguments) == 0
    assert "[/tumor]:skull:\ufffd[2J" in capsys.readouterr().out
    metadata = json.loads((out / "zarr.json").read_text())
    metadata["attributes"]["bcss"]["tool_version"] = "[/9]"
    (out / "zarr.json").write_text(json.dumps(metadata))
    monkeypatch.chdir(tmp_path)
    assert run_prep(monkeypatch, "inspect", "b[old]/s.zarr") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("b[old]/s.zarr", "bcss-sam2 [/9]", "[/tumor]:skull:\ufffd[2J", "c[d]"):
        assert text in shown


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, prep.cli; print([m for m in ('zarr', 'numpy', 'cv2', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
