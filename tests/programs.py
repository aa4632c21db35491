"""Run the two programs in the test's own process; each call returns the exit code."""

import sys
from collections.abc import Callable

import pytest

from prep.cli import main as prep_main
from train.cli import main as train_main


def run_prep(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `bcss-prep` with these arguments."""
    return _run(monkeypatch, "bcss-prep", prep_main, *arguments)


def run_train(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `bcss-train` with these arguments."""
    return _run(monkeypatch, "bcss-train", train_main, *arguments)


def _run(monkeypatch: pytest.MonkeyPatch, program: str, main: Callable[[], None], *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code if isinstance(stop.value.code, int) else 0
