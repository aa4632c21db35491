"""The report, opened in a browser without a network."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from schemas.store.store import Store
from train.model.checkpoint import WeightsFile
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.output.report import OVERALL, run_of, write_report
from train.runtime.run_log import RunLog, StepRecord
from train.score.evaluate import Evaluation, evaluate
from train.score.protocol import ScoringProtocol

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = '_<script>alert("$\\x$")</script>&_'
WEIGHTS = WeightsFile("run/checkpoints/best.pt", "5a" * 32)
PROTOCOL = ScoringProtocol("test", ("box", "centroid"), corrections=1, tolerance_um=2.0)


@pytest.fixture(scope="module")
def predictors(nano: PromptableSam) -> dict[str, MaskPredictor]:
    predictor = MaskPredictor(nano, torch.device("cpu"), WEIGHTS)
    return {"model": predictor, HOSTILE: predictor}


@pytest.fixture(scope="module")
def evaluation(store: Store, predictors: dict[str, MaskPredictor]) -> Evaluation:
    return evaluate(store, predictors, PROTOCOL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a run of 60 steps with two epochs."""
    folder = tmp_path_factory.mktemp("run")
    with RunLog(folder) as log:
        for step in range(1, 61):
            record = StepRecord(step, 1, 3 / step, 1, 1, 0, 0, 1e-5, 0, 1, 2, 6, 0, 0, 0.1, 1, [0, 1])
            log.step(record)
            if step % 30 == 0:
                log.epoch(step, step // 30, {"box": {"overall": {"dice": 0.5, "iou": 0.4}, "classes": {}}}, 0.5)
    return folder


@pytest.fixture(scope="module")
def report(
    store: Store,
    predictors: dict[str, MaskPredictor],
    evaluation: Evaluation,
    run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, f"Evaluation {HOSTILE} {'x' * 80}", store, evaluation, predictors, PROTOCOL, run)
    return path


def test_tolerance_is_named_only_where_outlines_were_compared(
    report: Path, store: Store, evaluation: Evaluation, tmp_path: Path
) -> None:
    assert "surface tolerance 2.0 µm" in report.read_text()
    result = copy.deepcopy(evaluation.result)
    for kinds in result["models"].values():
        for scores in kinds.values():
            for means in (scores["overall"], *scores["classes"].values()):
                del means["surface_dice"]
    write_report(tmp_path / "r.html", "R", store, replace(evaluation, result=result))
    assert "surface tolerance" not in (tmp_path / "r.html").read_text()


def test_small_p_is_not_shown_as_zero(store: Store, evaluation: Evaluation, tmp_path: Path) -> None:
    result = copy.deepcopy(evaluation.result)
    for pair, p in zip(result["paired"], (0.0001, 0.0123), strict=False):
        pair["class_mean"]["p"] = p
    write_report(tmp_path / "r.html", "R", store, replace(evaluation, result=result))
    text = (tmp_path / "r.html").read_text()
    assert "<td>&lt; 0.001</td>" in text
    assert "<td>0.012</td>" in text


def test_run_without_a_validation_has_no_plot_of_it(store: Store, tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.step(StepRecord(1, 1, 3, 1, 1, 0, 0, 1e-5, 0, 1, 2, 6, 0, 0, 0.1, 1, [0, 1]))
    write_report(tmp_path / "r.html", "R", store, run=tmp_path)
    text = (tmp_path / "r.html").read_text()
    assert "Loss of each step" in text
    assert "Validation after each epoch" not in text


def test_class_called_as_all_classes_together_hides_nothing(
    store: Store, evaluation: Evaluation, tmp_path: Path
) -> None:
    result = copy.deepcopy(evaluation.result)
    for kinds in result["models"].values():
        for scores in kinds.values():
            scores["classes"] = {OVERALL: next(iter(scores["classes"].values()))}
    write_report(tmp_path / "r.html", "R", store, replace(evaluation, result=result))
    rows = re.findall(r'data-class="(.*?)"', (tmp_path / "r.html").read_text())
    assert rows.count(OVERALL) == rows.count(f"{OVERALL} (a class)") > 0


class Opened:
    """A page that is opened without a network, with the errors and requests that it causes."""

    def __init__(self, browser: Browser, path: Path, width: int = 1200) -> None:
        context = browser.new_context(offline=True, viewport={"width": width, "height": 900})
        self.page: Page = context.new_page()
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("requestfailed", lambda request: self.troubles.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def column(self, number: int) -> list[str]:
        """Texts of one column of the rows that are shown."""
        cells = self.page.locator(f"#scores tbody tr:visible td:nth-child({number})")
        return [re.sub(r"\s+", " ", text).strip() for text in cells.all_inner_texts()]


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Opened]:
    found = Opened(browser, report)
    yield found
    found.page.context.close()


def test_it_renders_without_error_and_asks_for_nothing(opened: Opened, report: Path) -> None:
    assert opened.page.title().startswith("Evaluation _<script>")
    opened.page.get_by_text("Files and command line").click()
    facts = opened.page.locator("details p:visible").all_inner_texts()
    assert facts == [f"{name}: {WEIGHTS.path}, SHA-256 {WEIGHTS.sha256}" for name in ("model", HOSTILE)]
    headings = opened.page.locator("h2").all_inner_texts()
    assert headings == [
        "Scores",
        "Differences on the same objects",
        "Clicks until the mask is good",
        "Dice by class",
        "Dice against size of the object",
        "Surface Dice against tolerance",
        "True IoU against the model's own estimate",
        "Dice after simulated clicks",
        "Training of run0",
        "Best objects",
        "Middle objects",
        "Worst objects",
    ]
    classes, models, starts = 4, 2, 3
    panels = opened.page.locator(".panels").evaluate_all("all => all.map(one => one.querySelectorAll('svg').length)")
    assert panels == [classes, models + starts, models + starts, models, models, 2]
    sizes = opened.page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert sizes == [320] * 12
    assert opened.requests[0] == report.as_uri()
    assert all(url.startswith("data:") for url in opened.requests[1:])
    assert opened.troubles == []


def test_objects_that_are_shown_are_the_best_the_middle_and_the_worst(report: Path, evaluation: Evaluation) -> None:
    dice = sorted(evaluation.tables["model"]["box"].dice.tolist())
    middle = len(dice) // 2 - 2
    expected = {"Best": dice[:-5:-1], "Middle": dice[middle : middle + 4], "Worst": dice[:4]}
    sections = report.read_text().split("<h2>")
    for title, values in expected.items():
        (section,) = (text for text in sections if text.startswith(f"{title} objects"))
        shown = [float(value) for value in re.findall(r"<figcaption>Dice (\d\.\d{3}),", section)]
        assert shown == pytest.approx(values, abs=6e-4), title


def test_choosing_a_class_shows_its_rows_alone(opened: Opened, evaluation: Evaluation) -> None:
    models = evaluation.result["models"]
    rows = [(model, kind, scores) for model, kinds in models.items() for kind, scores in kinds.items()]

    def expected(name: str) -> list[tuple[str, str, str]]:
        means = [(model, kind, scores["classes"].get(name)) for model, kind, scores in rows]
        return [(model, kind, str(entry["n"])) for model, kind, entry in means if entry]

    def shown() -> list[tuple[str, str, str]]:
        return list(zip(opened.column(1), opened.column(2), opened.column(8), strict=True))

    assert shown() == [(model, kind, str(scores["overall"]["n"])) for model, kind, scores in rows]
    classes = list(next(iter(models.values()))["box"]["classes"])
    assert opened.page.locator("#class option").all_inner_texts() == [OVERALL, *classes]
    for name in classes:
        opened.page.select_option("#class", name)
        assert shown() == expected(name)
    opened.page.select_option("#class", OVERALL)
    assert len(shown()) == len(rows)
    assert opened.troubles == []


def test_a_click_on_a_head_sorts_and_another_one_turns_the_order_round(opened: Opened) -> None:
    page = opened.page

    def dice() -> list[float]:
        return [float(text.split()[0].rstrip("†‡")) for text in opened.column(3)]

    unsorted = dice()
    page.get_by_role("button", name="Dice, class mean", exact=True).click()
    assert dice() == sorted(unsorted, reverse=True)
    assert page.locator("th[aria-sort=descending]").all_inner_texts() == ["Dice, class mean"]
    page.get_by_role("button", name="Dice, class mean", exact=True).click()
    assert dice() == sorted(unsorted)
    assert page.locator("th[aria-sort]").count() == 1
    page.get_by_role("button", name="model").click()
    page.get_by_role("button", name="model").click()
    assert [name for name in opened.column(1) if name.startswith("baseline")] == sorted(
        name for name in opened.column(1) if name.startswith("baseline")
    )
    # Baselines have no IoU estimate; missing values come last when the highest value comes first.
    page.get_by_role("button", name="IoU estimate off by").click()
    texts = opened.column(7)
    assert texts == [text for text in texts if text != "-"] + ["-"] * 6
    assert len(texts) == 10
    assert opened.troubles == []


def test_it_fits_a_phone(browser: Browser, report: Path) -> None:
    opened = Opened(browser, report, width=390)
    widths = opened.page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
    assert max(widths) <= 390
    assert opened.page.locator("#scores").bounding_box() is not None
    assert opened.troubles == []
    opened.page.context.close()


def test_names_are_escaped(opened: Opened, report: Path) -> None:
    assert HOSTILE in opened.column(1)
    assert "<script>alert" not in report.read_text()
    assert opened.page.locator("script").count() == 1


def test_nothing_is_loaded_from_elsewhere(report: Path) -> None:
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", report.read_text())
    assert links
    assert {link for link in links if not link.startswith(("data:", "#"))} == set()
    assert not re.findall(r"url\((?!#)|@import", report.read_text())


def test_class_names_are_escaped_and_found(
    store: Store, browser: Browser, evaluation: Evaluation, tmp_path: Path
) -> None:
    name = 'a  "<b>" & $c'
    models = {
        model: {kind: {**scores, "classes": {name: scores["overall"]}} for kind, scores in kinds.items()}
        for model, kinds in evaluation.result["models"].items()
    }
    renamed = replace(evaluation, result={**evaluation.result, "models": models})
    write_report(tmp_path / "report.html", "Classes", store, renamed)
    opened = Opened(browser, tmp_path / "report.html")
    opened.page.select_option("#class", index=1)
    assert len(opened.column(1)) == 10
    assert opened.page.locator("#scores b").count() == 0
    assert opened.troubles == []
    opened.page.context.close()


def test_curves_alone(store: Store, browser: Browser, run: Path, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", "Run", store, run=run)
    opened = Opened(browser, tmp_path / "report.html")
    assert opened.page.locator("h2").all_inner_texts() == ["Training of run0"]
    assert opened.page.locator("#scores").count() == 0
    assert store.path in opened.page.locator(".facts").inner_text()
    assert opened.troubles == []
    opened.page.context.close()


def test_a_run_is_named_from_any_folder(
    store: Store, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "evaluation").mkdir(exist_ok=True)
    monkeypatch.chdir(run / "evaluation")
    write_report(tmp_path / "report.html", "Run", store, run=Path(".."))
    assert "<h2>Training of run0</h2>" in (tmp_path / "report.html").read_text()


def test_the_run_of_a_checkpoint_is_known_by_its_log(run: Path, tmp_path: Path) -> None:
    assert run_of(run / "checkpoints" / "checkpoint.pt") == run
    assert run_of(tmp_path / "checkpoints" / "official.pt") is None


def test_tables_of_runs_and_institutions(store: Store, evaluation: Evaluation, tmp_path: Path) -> None:
    spread = {"mean": 0.51, "sd": 0.02, "lowest": 0.49, "highest": 0.53}
    left_out = {"without": {"A2": 0.41, "OL": 0.62}, "ci95": (0.3, 0.7)}
    more = {
        "repeats": [{"models": ["a", "b"], "prompts": {"box": spread}}],
        "institutions": {
            "patients": {"A2": 3, "OL": 1},
            "models": {"model": {"box": left_out, "centroid": {**left_out, "ci95": None}}},
        },
    }
    write_report(tmp_path / "report.html", "More", store, replace(evaluation, result={**evaluation.result, **more}))
    text = (tmp_path / "report.html").read_text()
    assert "<td>a, b</td><td>2</td>" in text
    assert "<td>0.510</td><td>0.020</td><td>0.490</td><td>0.530</td>" in text
    assert "A2 (3), OL (1) (patients)" in text
    ends = "<td>0.410 without A2</td><td>0.620 without OL</td>"
    assert f"<td>0.300 to 0.700</td>{ends}" in text
    assert f"<td>a class in only one institution</td>{ends}" in text
