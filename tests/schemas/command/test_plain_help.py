"""The help of the commands with many flags, at 80 columns."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import prep.cli
import train.cli
from prep.command.help_groups import BUILD
from train.command import help_groups

APPS = {"bcss-prep": prep.cli.app, "bcss-train": train.cli.app}
GROUPED = {
    ("bcss-prep", "build"): BUILD,
    ("bcss-train", "evaluate"): help_groups.EVALUATE,
    ("bcss-train", "predict"): help_groups.PREDICT,
    ("bcss-train", "fit"): help_groups.FIT,
}


def _parameters(program: str, name: str) -> list[Any]:
    group: Any = get_command(APPS[program])
    return list(group.commands[name].params)


def _help(program: str, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    done = CliRunner().invoke(APPS[program], [name, "--help"])
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize(("program", "name"), GROUPED)
def test_flags_are_whole_and_grouped_at_80_columns(program: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _help(program, name, monkeypatch)
    assert "\u2026" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    words = text.replace(";", " ").replace(",", " ").split()
    for parameter in _parameters(program, name):
        for flag in (*parameter.opts, *parameter.secondary_opts):
            assert parameter.param_type_name == "argument" or flag in words, flag
    places = [text.index(f"\u2500 {group} \u2500") for group in GROUPED[program, name]]
    assert places == sorted(places)
    assert text.index("Examples:") > places[-1]


@pytest.mark.parametrize(("program", "name"), GROUPED)
def test_every_flag_has_one_group(program: str, name: str) -> None:
    grouped = [flag for flags in GROUPED[program, name].values() for flag in flags]
    options = [p.name for p in _parameters(program, name) if p.param_type_name == "option"]
    assert sorted(grouped) == sorted(options)


def test_defaults_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(_help("bcss-train", "evaluate", monkeypatch).replace("\u2502", " ").split())
    assert "Default: test, or what the" in text
    assert "[default" not in text
    assert "--no-zero-shot turns it off. Default: on." in text
    assert "--no-negatives turns it off. Default: off." in text


def test_asking_for_help_leaves_the_flags_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    _help("bcss-train", "evaluate", monkeypatch)
    negatives = next(p for p in _parameters("bcss-train", "evaluate") if p.name == "negatives")
    assert negatives.secondary_opts == ["--no-negatives"]


def test_examples_are_commands_that_parse() -> None:
    shown = help_groups.EVALUATE_EXAMPLES, help_groups.PREDICT_EXAMPLES, help_groups.FIT_EXAMPLES
    for example in (example for examples in shown for example in examples):
        program, name, *arguments = example.split()
        flags = {flag for parameter in _parameters(program, name) for flag in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= flags, example


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = "import sys, train.cli, prep.cli; print([m for m in ('torch', 'numpy', 'zarr', 'cv2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
