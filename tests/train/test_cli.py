import subprocess
import sys
from pathlib import Path

import pytest

from schemas.store.store import Store
from tests.programs import run_train


@pytest.fixture(scope="module")
def store(short_store: Store) -> Store:
    """The store with three validation tiles, because each run validates at least twice."""
    return short_store


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "STORE", "--image-size", "100"], "multiple of 32"),
        (["fit", "STORE", "--prompt", "scribble"], "scribble"),
        (["evaluate", "STORE", "--out", "x"], "at least one"),
        (["evaluate", "STORE", "--out", "x", "--baseline", "oracle"], "oracle"),
        (["evaluate", "STORE", "--out", "x", "--baseline", "box", "--jitter", "0.1,0.5"], "'0.5' is not a number"),
        (["evaluate", "STORE", "--out", "x", "--baseline", "box", "--jitter", "small"], "'small' is not a number"),
    ],
)
def test_wrong_calls_exit_2(store: Store, monkeypatch, capsys, arguments, message: str) -> None:
    assert run_train(monkeypatch, *(store.path if a == "STORE" else a for a in arguments)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.zarr"], "nowhere.zarr: no store is there"),
        (["fit", "STORE", "--init", "none.pt", "--image-size", "128"], "none.pt: does not exist"),
        (["fit", "STORE", "--freeze", "legs", "--image-size", "128"], "--freeze legs: names no module"),
        (["evaluate", "STORE", "--checkpoint", "none.pt", "--out", "x"], "none.pt: does not exist"),
    ],
)
def test_failures_print_one_line_and_exit_1(
    store: Store, monkeypatch, capsys, tmp_path: Path, arguments, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_train(monkeypatch, *(store.path if a == "STORE" else a for a in arguments)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, train.cli; print([m for m in ('zarr', 'numpy', 'cv2', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
