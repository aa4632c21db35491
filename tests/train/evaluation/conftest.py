import sys
from collections.abc import Callable

import pytest

from train.cli import main

RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Runs `bcss-train` with arguments; returns the exit status, and what it wrote to stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bcss-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        written = capsys.readouterr()
        return code if isinstance(code, int) else 0, written.out, written.err

    return run
