import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.store import Store
from train.cli import main


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bcss-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    code = stop.value.code
    return code if isinstance(code, int) else 0


def test_fit_then_evaluate(store: Store, tmp_path: Path, monkeypatch, capsys) -> None:
    run, out = tmp_path / "run", tmp_path / "eval"
    arguments = ("--image-size", 128, "--max-steps", 1, "--workers", 0, "--prompt", "box", "--device", "cpu")
    assert _run(monkeypatch, "fit", store.path, "--out", run, *arguments) == 0
    checkpoint = run / "checkpoints" / "checkpoint.pt"
    assert str(checkpoint) in capsys.readouterr().out
    assert _run(monkeypatch, "evaluate", store.path, "--checkpoint", checkpoint, "--prompt", "box", "--out", out) == 0
    result = json.loads((out / "metrics.json").read_text())
    assert list(result["models"]["checkpoint"]) == ["box"]
    assert "baseline:box" in capsys.readouterr().out


def test_baseline_alone(store: Store, tmp_path: Path, monkeypatch) -> None:
    assert _run(monkeypatch, "evaluate", store.path, "--baseline", "box", "--split", "val", "--out", tmp_path) == 0
    assert list(json.loads((tmp_path / "metrics.json").read_text())["models"]) == ["baseline:box"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "STORE", "--image-size", "100"], "multiple of 32"),
        (["fit", "STORE", "--prompt", "scribble"], "scribble"),
        (["evaluate", "STORE", "--out", "x"], "at least one"),
        (["evaluate", "STORE", "--out", "x", "--baseline", "oracle"], "oracle"),
    ],
)
def test_wrong_calls_exit_2(store: Store, monkeypatch, capsys, arguments, message: str) -> None:
    assert _run(monkeypatch, *(store.path if a == "STORE" else a for a in arguments)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.zarr"], "nowhere.zarr: no store is there"),
        (["fit", "STORE", "--init", "none.pt", "--image-size", "128"], "none.pt: is not there"),
        (["fit", "STORE", "--freeze", "legs", "--image-size", "128"], "--freeze legs: is no module"),
        (["evaluate", "STORE", "--checkpoint", "none.pt", "--out", "x"], "none.pt: is not there"),
    ],
)
def test_failures_are_one_line_and_exit_1(
    store: Store, monkeypatch, capsys, tmp_path: Path, arguments, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(monkeypatch, *(store.path if a == "STORE" else a for a in arguments)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, train.cli; print([m for m in ('zarr', 'numpy', 'cv2', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
