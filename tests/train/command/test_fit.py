"""`bcss-train fit`: what it prints, and flags that are the settings."""

import inspect
import json
import re
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import pytest

from schemas.store.store import Store
from tests.programs import run_train
from train import cli
from train.backbone.sam2 import SAM2
from train.command.fit import TileBar
from train.config import FitConfig, flag_of, flags_as_settings

NANO = ("--model", "nano", "--image-size", 128, "--workers", 0, "--device", "cpu")


def test_plan_prints_what_a_run_needs_and_makes_no_folder(store: Store, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    # typer ends a command that returns with status 0.
    assert run_train(monkeypatch, "fit", store.path, *NANO, "--max-steps", 2, "--plan") == 0
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert words == ["model", "trains", "data", "run", "memory", "batch", "time", "nothing"]
    assert list(tmp_path.iterdir()) == []


def test_next_commands_after_a_run_on_frames_follow_objects(
    sequences: Store, tmp_path: Path, monkeypatch, capsys
) -> None:
    run, flags = tmp_path / "run", ("--frames", 2, "--prompt", "box", "--max-steps", 1, "--batch-size", 1)
    assert run_train(monkeypatch, "fit", sequences.path, "--out", run, *NANO, *flags, "--no-report") == 0
    said = capsys.readouterr().out
    assert re.search(rf"next +bcss-train evaluate {sequences.path} --checkpoint \S+ --propagate --out \S+\n", said)
    assert re.search(r" +bcss-train predict \S+ FRAMES --first-mask MASK --out \S+\n", said)


def test_fit_then_evaluate(store: Store, tmp_path: Path, monkeypatch, capsys) -> None:
    run, out = tmp_path / "run", tmp_path / "eval"
    flags = ("--max-steps", 1, "--prompt", "box")
    assert run_train(monkeypatch, "fit", store.path, "--out", run, *NANO, *flags) == 0
    checkpoint = run / "checkpoints" / "checkpoint.pt"
    said = capsys.readouterr().out
    assert str(checkpoint) in said
    best = run / "checkpoints" / "best.pt"
    assert f"next        bcss-train evaluate {store.path} --checkpoint {best} --out {run / 'evaluation'}\n" in said
    assert f"bcss-train predict {best} IMAGE --automatic --out {run / 'predictions'}\n" in said
    scored = ("--checkpoint", checkpoint, "--prompt", "box", "--out", out)
    assert run_train(monkeypatch, "evaluate", store.path, *scored) == 0
    assert "Dice by class" in (run / "report.html").read_text()
    result = json.loads((out / "metrics.json").read_text())
    assert list(result["models"]["run/checkpoint"]) == ["box"]
    # The report shows the curves of the checkpoint's run beside its scores.
    assert "<h2>Training of run</h2>" in (out / "report.html").read_text()
    assert "baseline:box" in capsys.readouterr().out
    again = ("evaluate", store.path, "--baseline", "box", "--prompt", "box", "--out", out)
    assert run_train(monkeypatch, *again) == 1
    assert "metrics.json: belongs to an earlier evaluation; give --overwrite, or" in capsys.readouterr().err
    assert json.loads((out / "metrics.json").read_text()) == result
    assert run_train(monkeypatch, *again, "--overwrite") == 0
    assert list(json.loads((out / "metrics.json").read_text())["models"]) == ["baseline:box"]


NOT_SETTINGS = ("context", "store", "out", "resume", "config", "curve", "plan", "return")


def _options_of_fit() -> dict[str, tuple[Any, Any]]:
    """Return the annotation and the typer option of each parameter that is a setting."""
    hints = get_type_hints(cli.fit, include_extras=True)
    return {name: get_args(hint) for name, hint in hints.items() if name not in NOT_SETTINGS}


def test_flags_of_fit_are_settings_and_show_their_defaults() -> None:
    settings, given_defaults = FitConfig(), inspect.signature(cli.fit).parameters
    for name, (_, option) in _options_of_fit().items():
        (key,) = flags_as_settings({name: 0})
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        # Without the flag, the setting comes from the file, or is the default.
        assert given_defaults[name].default is None
        shown = option.show_default
        if isinstance(value, bool) and isinstance(shown, str):
            assert (shown == flag_of(key)) == value, key
        elif isinstance(shown, str):
            assert shown == str(value), key
        else:
            assert value in (None, False, 0, 0.0, ()), f"{key} has the default {value!r}, and --help does not show it"


def test_flags_have_the_bounds_and_choices_of_the_settings() -> None:
    fields = dict(FitConfig.model_fields)
    for group in ("optimizer", "augment", "lora", "loss"):
        nested = cast("Any", FitConfig.model_fields[group].annotation).model_fields
        fields |= {f"{group}.{name}": field for name, field in nested.items()}
    for name, (annotation, option) in _options_of_fit().items():
        (key,) = flags_as_settings({name: 0})
        if option.min is not None:
            assert [option.min] == [bound.ge for bound in fields[key].metadata if hasattr(bound, "ge")], key
        choices = [part for part in get_args(annotation) if get_origin(part) is Literal]
        if choices:
            own = fields[key].annotation
            # A setting that may be None has a union of its choices and None.
            wanted = own if get_origin(own) is Literal else get_args(own)[0]
            assert get_args(choices[0]) == get_args(wanted), key


def test_help_of_freeze_names_every_preset() -> None:
    _, option = _options_of_fit()["freeze"]
    named = re.findall(r"\w+", option.help.partition("a preset: ")[2])
    assert set(named) >= SAM2.freeze_presets.keys() - {"none"}


def test_debug_shows_the_time_of_each_stage(store: Store, tmp_path: Path, monkeypatch, caplog) -> None:
    flags = ("--out", tmp_path / "run", *NANO, "--max-steps", 2, "--no-report")
    assert run_train(monkeypatch, "--debug", "fit", store.path, *flags) == 0
    calls = {r.bcss_fields["stage"]: r.bcss_fields.get("calls") for r in caplog.records if hasattr(r, "bcss_fields")}
    assert calls["data wait"] == calls["forward, backward, update"] == 2
    assert {"set up", "validate", "save"} <= calls.keys()


class Terminal(StringIO):
    """What a terminal would show."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "is_disabled"), [(Terminal, False), (Terminal, True), (StringIO, False)])
def test_bar_of_tiles_is_shown_on_a_terminal_and_goes_away(
    monkeypatch: pytest.MonkeyPatch, stream: Callable[[], StringIO], is_disabled: bool
) -> None:
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    bar = TileBar(type("Steps", (), {"disable": is_disabled})())
    for doing in ("validate", "report"):
        for done in (1, 2):
            bar(doing, done, 2)
    said = shown.getvalue()
    if stream is StringIO or is_disabled:
        assert said == ""
        return
    assert re.findall(r"(\w+): +0%\| *\| 0/2 \[", said) == ["validate", "report"]
    # The bar of the next validation begins on an empty line.
    assert re.search(r"\r +\r$", said)
