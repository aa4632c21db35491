import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import pytest
import torch
import zarr

from prep.build import build_store
from prep.config import BuildConfig
from prep.synthetic import write_sample
from schemas.store.store import Store
from train import cli
from train.cli import main
from train.config import FitConfig, flag_of, flags_as_settings
from train.model.promptable import PromptableSam


@pytest.fixture(scope="module")
def store(short_store: Store) -> Store:
    """The store with three validation tiles, because each run validates at least twice."""
    return short_store


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bcss-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    code = stop.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture(scope="module")
def bare_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one training patient and without negative points."""
    folder = tmp_path_factory.mktemp("bare")
    write_sample(folder / "source", rois=1, size_px=128)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=128))
    group = zarr.open_group(folder / "s.zarr", mode="r+")
    group.attrs["bcss"] = {**cast("dict[str, Any]", group.attrs["bcss"]), "negative_points": 0}
    return str(folder / "s.zarr")


def test_plan_prints_what_a_run_needs_and_makes_no_folder(store: Store, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "nano", "--image-size", 128, "--max-steps", 2, "--workers", 0, "--device", "cpu", "--plan")
    # typer ends a command that returns with status 0.
    assert _run(monkeypatch, "fit", store.path, *flags) == 0
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    # A process that has used much memory before may measure no growth, and then no batch is extrapolated.
    assert [word for word in words if word != "batch"] == [
        "model",
        "trains",
        "data",
        "run",
        "memory",
        "time",
        "nothing",
    ]
    assert list(tmp_path.iterdir()) == []


def test_next_commands_after_a_run_on_frames_follow_objects(
    sequences: Store, tmp_path: Path, monkeypatch, capsys
) -> None:
    flags = (
        "--model",
        "nano",
        "--image-size",
        128,
        "--frames",
        2,
        "--prompt",
        "box",
        "--max-steps",
        1,
        "--batch-size",
        1,
    )
    run = tmp_path / "run"
    assert _run(monkeypatch, "fit", sequences.path, "--out", run, *flags, "--workers", 0, "--no-report") == 0
    said = capsys.readouterr().out
    assert re.search(rf"next +bcss-train evaluate {sequences.path} --checkpoint \S+ --propagate --out \S+\n", said)
    assert re.search(r" +bcss-train predict \S+ FRAMES --first-mask MASK --out \S+\n", said)


def test_fit_then_evaluate(store: Store, tmp_path: Path, monkeypatch, capsys) -> None:
    run, out = tmp_path / "run", tmp_path / "eval"
    arguments = (
        "--model",
        "nano",
        "--image-size",
        128,
        "--max-steps",
        1,
        "--workers",
        0,
        "--prompt",
        "box",
        "--device",
        "cpu",
    )
    assert _run(monkeypatch, "fit", store.path, "--out", run, *arguments) == 0
    checkpoint = run / "checkpoints" / "checkpoint.pt"
    said = capsys.readouterr().out
    assert str(checkpoint) in said
    best = run / "checkpoints" / "best.pt"
    assert f"next        bcss-train evaluate {store.path} --checkpoint {best} --out {run / 'evaluation'}\n" in said
    assert f"bcss-train predict {best} IMAGE --automatic --out {run / 'predictions'}\n" in said
    assert _run(monkeypatch, "evaluate", store.path, "--checkpoint", checkpoint, "--prompt", "box", "--out", out) == 0
    assert "Dice by class" in (run / "report.html").read_text()
    result = json.loads((out / "metrics.json").read_text())
    assert list(result["models"]["run/checkpoint"]) == ["box"]
    # The report shows the curves of the checkpoint's run beside its scores.
    assert "<h2>Training of run</h2>" in (out / "report.html").read_text()
    assert "baseline:box" in capsys.readouterr().out
    again = ("evaluate", store.path, "--baseline", "box", "--prompt", "box", "--out", out)
    assert _run(monkeypatch, *again) == 1
    assert "metrics.json: belongs to an earlier evaluation; give --overwrite, or" in capsys.readouterr().err
    assert json.loads((out / "metrics.json").read_text()) == result
    assert _run(monkeypatch, *again, "--overwrite") == 0
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


def test_debug_shows_the_time_of_each_stage(store: Store, tmp_path: Path, monkeypatch, caplog) -> None:
    arguments = (
        "--model",
        "nano",
        "--image-size",
        128,
        "--max-steps",
        2,
        "--workers",
        0,
        "--device",
        "cpu",
        "--no-report",
    )
    assert _run(monkeypatch, "--debug", "fit", store.path, "--out", tmp_path / "run", *arguments) == 0
    calls = {r.bcss_fields["stage"]: r.bcss_fields.get("calls") for r in caplog.records if hasattr(r, "bcss_fields")}
    assert calls["data wait"] == calls["forward, backward, update"] == 2
    assert {"set up", "validate", "save"} <= calls.keys()


def test_masks_rois_and_clicks_are_written_on_request(
    store: Store, nano: PromptableSam, tmp_path: Path, monkeypatch, capsys
) -> None:
    official = tmp_path / "official.pt"
    torch.save({"model": nano.sam.state_dict()}, official)
    model = ("--checkpoint", official, "--model", "nano", "--image-size", 128, "--device", "cpu")
    wanted = ("--save-masks", "--stitch", "--corrections", 1, "--prompt", "box", "--prompt", "centroid")
    out = tmp_path / "out"
    assert _run(monkeypatch, "evaluate", store.path, *model, *wanted, "--threshold", "0.5", "--out", out) == 0
    for kind in ("box", "centroid"):
        assert len(list((out / "stitched" / "official" / kind).iterdir())) == 1
        assert (out / "masks" / "official" / kind / "results.json").exists()
    # Masks are those of models alone, unless a baseline is named.
    assert [path.name for path in (out / "stitched").iterdir()] == ["official"]
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["official", "truth.json"]
    printed = capsys.readouterr().out
    for folder in ("masks", "stitched"):
        assert f"{folder:<8} {out / folder}; pixels without a mask have the value 0" in printed
    assert "Dice after simulated clicks" in (out / "report.html").read_text()
    result = json.loads((out / "metrics.json").read_text())
    assert result["protocol"]["thresholds"] == {"official, box": 0.5, "official, centroid": 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "small"], "does not fit the model small"),
        (
            ["--model", "nano", "--threshold", "val", "--split", "val"],
            "cannot tune the threshold on the split that is being scored",
        ),
        (
            ["--model", "nano", "--threshold", "val", "--split", "all"],
            "cannot tune the threshold on the split that is being scored",
        ),
        (["--model", "nano", "--threshold", "high"], "--threshold high: is neither"),
        (["--model", "nano", "--threshold", "nan"], "--threshold nan: is neither"),
        (["--model", "nano", "--negatives"], "has no negative points"),
        (["--model", "nano", "--split", "test"], "has no object in the split 'test'; it has tiles in train"),
    ],
)
def test_impossible_evaluations_print_one_line_and_exit_1(
    bare_store: str, nano: PromptableSam, tmp_path: Path, monkeypatch, capsys, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": nano.sam.state_dict()}, "official.pt")
    common = ("--checkpoint", "official.pt", "--image-size", 128, "--split", "train", "--out", "out")
    assert _run(monkeypatch, "evaluate", bare_store, *common, *arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert not Path("out").exists()


@pytest.mark.parametrize("flag", ["tta", "negatives"])
def test_flag_of_an_evaluation_reaches_its_protocol(store: Store, tmp_path: Path, monkeypatch, flag: str) -> None:
    common = ("--baseline", "box", "--prompt", "box", "--split", "val", "--out", tmp_path)
    assert _run(monkeypatch, "evaluate", store.path, *common, f"--{flag}") == 0
    protocol = json.loads((tmp_path / "metrics.json").read_text())["protocol"]
    assert {name: protocol[name] for name in ("tta", "negatives")} == {"tta": False, "negatives": False, flag: True}


def test_baseline_alone(store: Store, tmp_path: Path, monkeypatch) -> None:
    common = ("--split", "val", "--save-masks", "--out", tmp_path)
    assert _run(monkeypatch, "evaluate", store.path, "--baseline", "box", *common) == 0
    assert (tmp_path / "masks" / "baseline_box" / "box" / "results.json").exists()
    assert list(json.loads((tmp_path / "metrics.json").read_text())["models"]) == ["baseline:box"]


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
    assert _run(monkeypatch, *(store.path if a == "STORE" else a for a in arguments)) == 2
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
    assert _run(monkeypatch, *(store.path if a == "STORE" else a for a in arguments)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, train.cli; print([m for m in ('zarr', 'numpy', 'cv2', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
