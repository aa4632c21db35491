import sys

import pytest

from schemas.console import run_command
from schemas.errors import SourceError


def _fail() -> None:
    raise SourceError("mask.png", "is damaged\nbadly", "export it again")


def test_expected_failure_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bcss-prep", "build"])
    with pytest.raises(SystemExit) as stop:
        run_command(_fail, "bcss-prep")
    assert stop.value.code == 1
    assert capsys.readouterr().err == "bcss-prep: error: mask.png: is damaged badly; export it again\n"


def test_debug_shows_the_traceback_and_is_no_argument(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bcss-prep", "build", "--debug"])
    with pytest.raises(SourceError):
        run_command(_fail, "bcss-prep")
    assert sys.argv == ["bcss-prep", "build"]


def test_defect_of_ours_keeps_its_traceback(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bcss-prep"])
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0, "bcss-prep")
