"""What a run says at its end: in the terminal, in `summary.json`, in TensorBoard and in its report."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from schemas.store.store import Store
from tests.programs import run_train
from train.config import read_config
from train.fit.state import RunIdentity, start_run
from train.fit.trainer import fit
from train.fit.validate import validate
from train.model.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = ("--model", "nano", "--image-size", "128", "--batch-size", "36", "--workers", "0", "--device", "cpu")
PROMPT = "box"


@contextmanager
def _scores(scores: list[float]) -> Generator[None]:
    """Let real validations have these scores, one after the other."""
    left = iter(scores)

    def scored(*arguments: Any) -> Any:
        score, validation = next(left), validate(*arguments)
        for means in validation.scores.values():
            means["overall"]["class_mean"]["dice"]["value"] = score
        return validation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.fit.epoch_end.validate", scored)
        yield


@pytest.fixture(scope="module")
def worse(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """A run of two epochs of which none beats the start: its folder, its command line and what it printed."""
    out = tmp_path_factory.mktemp("worse") / "my run"
    command = ["fit", small_store.path, "--out", str(out), *FLAGS, "--prompt", PROMPT, "--epochs", "2"]
    printed = StringIO()
    with _scores([0.7, 0.7, 0.6]), redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        assert run_train(patch, *command) == 0
    return out, ["bcss-train", *command], printed.getvalue()


def _rows(report: str, heading: str) -> list[list[str]]:
    """Return the texts of the cells of the table under a heading, without intervals."""
    section = report.split(f"<h2>{heading}</h2>")[1].split("</table>")[0]
    section = re.sub(r'<span class="ci">.*?</span>', "", section)
    rows = re.findall(r"<tr\b.*?</tr>", section, re.DOTALL)
    cells = [re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


def test_start_stays_best_and_terminal_and_report_say_so(worse: tuple[Path, list[str], str]) -> None:
    out, _, printed = worse
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["start_val"], summary["best_val"], summary["best_is_start"]) == (0.7, 0.7, True)
    best = load_checkpoint(out / "checkpoints" / "best.pt")
    untouched = start_run(read_config(out / "config.json", {}), RunIdentity("", 1, 1), torch.device("cpu")).model.sam
    assert best["steps"] == 0
    assert all(torch.equal(best["model"][name], weight) for name, weight in untouched.state_dict().items())
    said = "No epoch beat the start (validation Dice 0.700): best.pt holds the weights that the run began with."
    assert said in printed.splitlines()
    assert re.search(rf"</h1>\s*<p>{re.escape(said)}</p>", (out / "report.html").read_text())


def test_start_is_epoch_0_of_log_and_tensorboard(worse: tuple[Path, list[str], str]) -> None:
    out = worse[0]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    validated = [(line["epoch"], line["step"], line["val_score"]) for line in lines if "event" in line]
    per_epoch = validated[1][1]
    assert validated == [(0, 0, 0.7), (1, per_epoch, 0.7), (2, 2 * per_epoch, 0.6)]
    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    found = [(event.step, event.value) for event in board.Scalars("val/score")]
    assert found == [(step, pytest.approx(score)) for _, step, score in validated]
    assert [event.step for event in board.Scalars(f"val/iou/{PROMPT}/overall")] == [0, per_epoch, 2 * per_epoch]


def test_report_has_best_and_last_beside_the_start_and_no_empty_column(worse: tuple[Path, list[str], str]) -> None:
    report = (worse[0] / "report.html").read_text()
    head, *rows = _rows(report, "Scores")
    # The first row of a model is that of all classes.
    overall = {model: cells for model, _, *cells in reversed(rows)}
    assert set(overall) == {"best", "last", "baseline:untrained", "baseline:box", "baseline:image", "baseline:disc"}
    assert all(len(row) == len(head) for row in rows)
    empty = [name for name, *column in zip(head, *rows, strict=True) if set(column) <= {"-", ""}]
    assert empty == []
    # Both are chosen by the patients that are scored; the untouched start is not.
    seen = {name for name, cells in overall.items() if any("\u2020" in cell for cell in cells)}
    assert seen == {"best", "last"}


def test_report_lists_the_data_and_the_settings_that_differ(
    worse: tuple[Path, list[str], str], small_store: Store
) -> None:
    report = (worse[0] / "report.html").read_text()
    counts = {split: int((small_store.column("tiles/split") == split).sum()) for split in ("train", "val")}
    objects = small_store.column("tiles/split")[small_store.column("objects/tile_index")]
    assert _rows(report, "Data") == [
        ["store", small_store.path],
        *(
            [split, f"1 patient, {count} tiles, {int((objects == split).sum())} objects"]
            for split, count in counts.items()
        ),
    ]
    assert dict(_rows(report, "Settings that differ from the defaults")) == {
        "model": "nano (default tiny)",
        "image_size": "128 (default 1024)",
        "prompt": "box (default mixed)",
        "batch_size": "36 (default 4)",
        "epochs": "2 (default 20)",
        "workers": "0 (default 2)",
        "device": "cpu (default auto)",
    }


def test_report_carries_the_command_line(worse: tuple[Path, list[str], str]) -> None:
    out, command, _ = worse
    (made,) = re.findall(r"<p>Made by <code>(.*?)</code></p>", (out / "report.html").read_text())
    assert html.unescape(made) == shlex.join(command)


@pytest.fixture(scope="module")
def better(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of one epoch that beats the start: its folder and its summary."""
    out = tmp_path_factory.mktemp("better")
    flags = {"model": "nano", "image_size": 128, "batch_size": 36, "epochs": 1, "workers": 0, "prompt": PROMPT}
    with _scores([0.7, 0.8]):
        return out, fit(small_store, read_config(None, flags), out)


def test_report_says_that_best_is_the_last_step(better: tuple[Path, dict[str, Any]]) -> None:
    out, summary = better
    assert (summary["best_val"], summary["best_is_start"]) == (0.8, False)
    report = (out / "report.html").read_text()
    said = "The last epoch was the best one, so best is also the last step."
    assert re.search(rf"</h1>\s*<p>{said}</p>", report)
    assert "last" not in {row[0] for row in _rows(report, "Scores")}
    # Nobody gave a command.
    assert "Made by" not in report


def test_validation_finds_the_difference_to_the_start_that_the_report_finds(
    better: tuple[Path, dict[str, Any]],
) -> None:
    out, summary = better
    of_report = summary["against_start"][PROMPT]
    # The report scores the start and `best.pt` again; a run without a report has only what its validations kept.
    found = load_checkpoint(out / "checkpoints" / "checkpoint.pt")["against_start"][PROMPT]
    assert found["dice"] != 0
    for key in ("start", "dice", "patients", "few_patients"):
        assert found[key] == of_report[key]


@pytest.mark.parametrize("width", [1200, 400])
def test_report_fits_the_window(worse: tuple[Path, list[str], str], browser: Browser, width: int) -> None:
    context = browser.new_context(offline=True, viewport={"width": width, "height": 900})
    page, troubles = context.new_page(), list[str]()
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto((worse[0] / "report.html").as_uri())
    assert page.title() == "Training: my run"
    assert page.locator("h2").all_inner_texts()[:2] == ["Scores", "Differences on the same objects"]
    assert page.locator("#scores tbody tr:visible").count() == 6
    assert page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)") <= width
    # Curves and pictures are as wide as the window allows.
    widths = page.eval_on_selector_all(
        ".panel svg, .objects img", "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert len(widths) > 10
    assert max(widths) <= width
    assert troubles == []
    context.close()
