"""A report is scored again, and everything that is not as it says is named."""

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import BcssError, ConfigError
from schemas.store.store import Store
from tests.folders import bytes_of
from tests.train.evaluation.conftest import RunCommand
from train.evaluation.compare import compare_evaluations
from train.evaluation.run import run_evaluation
from train.evaluation.settings import EvaluationSettings
from train.evaluation.verify import verify_report
from train.model.promptable import PromptableSam

COMMAND = "bcss-train evaluate s.zarr --checkpoint 'a model.pt'"


@pytest.fixture(scope="module")
def official(nano: PromptableSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "official.pt"
    torch.save({"model": nano.sam.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def made(store: Store, official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of one model on the validation split."""
    settings = EvaluationSettings(
        store=store.path,
        checkpoints=(f"ours={official}",),
        model="nano",
        image_size=128,
        split="val",
        prompts=("box",),
        threshold="0.25",
        jitter=(0.1, 0.1),
        tolerance_um=3.0,
        save_masks=True,
        stitch=True,
        device="cpu",
    )
    out = tmp_path_factory.mktemp("report")
    run_evaluation(settings, out, command=COMMAND)
    return out


@pytest.fixture
def report(made: Path, tmp_path: Path) -> Path:
    """A copy of the evaluation."""
    return Path(shutil.copytree(made, tmp_path / "report"))


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_unchanged_report_is_the_same_when_scored_again(report: Path) -> None:
    before = bytes_of(report)
    found = verify_report(report)
    assert (found.differences, found.notes) == ([], [])
    assert found.compared > 1000
    assert bytes_of(report) == before


def test_other_code_and_another_setting_are_named(report: Path) -> None:
    numbers = json.loads((report / "metrics.json").read_text())
    numbers["made_by"] |= {"code_sha256": "0", "threads": 64}
    numbers["made_by"]["versions"]["torch"] = "1.0"
    numbers["settings"]["tolerance_um"] = 2.0
    (report / "metrics.json").write_text(json.dumps(numbers))
    found = verify_report(report)
    assert found.notes == [
        "the code differs from the code that made the report",
        f"torch 1.0 in the report, now {version('torch')}",
        "threads 64 in the report, now 1",
    ]
    named = " ".join(found.differences)
    assert "protocol / surface_tolerance_um: 3.0 in the report, 2.0 when scored again" in named
    assert "overall / surface_dice:" in named


@pytest.mark.parametrize(
    ("file", "pattern", "place"),
    [
        (
            "metrics.json",
            r'"ours": \{\s+"box": \{\s+"overall": \{\s+"dice": [\d.]+',
            "metrics.json / models / ours / box",
        ),
        ("objects.csv", r"ours,box,(?:[^,]+,){8}[\d.]+", "objects.csv, line 2, dice"),
        ("rois.csv", r"(?:.*\n){1}.*\d\.\d+", "rois.csv, line 2"),
        ("report.html", r'<td class="word">ours</td>(?:.|\n)*?>0\.\d+', "report.html, row 2"),
    ],
)
def test_a_changed_digit_is_named(made: Path, report: Path, file: str, pattern: str, place: str) -> None:
    text = (report / file).read_text()
    match = re.search(pattern, text)
    assert match
    digit = str((int(text[match.end() - 1]) + 1) % 10)
    (report / file).write_text(text[: match.end() - 1] + digit + text[match.end() :])
    (line,) = compare_evaluations(report, made).differences
    assert line.startswith(place)
    assert " in the report, " in line


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"<figcaption>Dice 0\.\d\d", "<figcaption>Dice 0.99", "figcaption 1: Dice 0.99"),
        (r'data-value="0\.', 'data-value="1.', "row 2, cell 3, data-value: 1."),
        (r", \d+ tiles of", ", 999 tiles of", "p 1: "),
        (r"Made by <code>bcss-train", "Made by <code>other", "code 1: other evaluate s.zarr"),
        (r"SHA-256 \w{4}", "SHA-256 0000", "p 2: ours: "),
        (r"base64,.{9}", "base64,/9j/AAAAA", "img 1, src: SHA-256 "),
        (
            r'<html lang="en">',
            '<html lang="en"><p>as good as a pathologist</p>',
            "meta 1, charset: p 1: as good as a pathologist",
        ),
        (r"<title>Evaluation", "<title>Proof", "title 1: Proof"),
    ],
)
def test_a_change_anywhere_on_the_page_is_named(made: Path, report: Path, old: str, new: str, said: str) -> None:
    text = (report / "report.html").read_text()
    changed, count = re.subn(old, new, text, count=1)
    assert count == 1
    (report / "report.html").write_text(changed)
    differences = compare_evaluations(report, made).differences
    assert f"report.html, {said}" in differences[0]
    assert " in the report, " in differences[0]


def test_another_picture_is_named(made: Path, report: Path) -> None:
    with Image.open(made / "overlays.png") as picture:
        # The same pixels in a larger file are the same picture.
        picture.save(report / "overlays.png", compress_level=0)
        assert compare_evaluations(report, made).differences == []
        picture.transpose(Image.Transpose.ROTATE_180).save(report / "overlays.png")
    (line,) = compare_evaluations(report, made).differences
    assert re.match(r"overlays\.png: \d+ x \d+ pixels with SHA-256 \w{12} in the report, \d+ x", line)
    (report / "overlays.png").write_bytes(b"no picture")
    with pytest.raises(BcssError, match=r"overlays\.png"):
        compare_evaluations(report, made)


def test_report_of_an_older_version_says_what_is_not_compared(
    made: Path, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored_again(settings: EvaluationSettings, out: Path, **_: object) -> SimpleNamespace:
        shutil.copytree(made, out, dirs_exist_ok=True)
        return SimpleNamespace(result=json.loads((made / "metrics.json").read_text()))

    monkeypatch.setattr("train.evaluation.verify.run_evaluation", scored_again)
    numbers = json.loads((report / "metrics.json").read_text())
    # An older version had more comparisons and another page, and did not know the form of its files.
    numbers["paired"] *= 3
    del numbers["made_by"]["form"], numbers["models"]["ours"]["box"]["overall"]["complete"]
    (report / "metrics.json").write_text(json.dumps(numbers))
    _change(report / "report.html", "<h2>Scores</h2>", "<h2>Numbers</h2>")
    found = verify_report(report)
    assert (found.differences, found.notes) == (
        [],
        [
            "another version wrote the report: report.html, overlays.png and the differences between models are not "
            "compared, all scores are"
        ],
    )
    numbers["models"]["ours"]["box"]["overall"]["dice"] += 0.1
    (report / "metrics.json").write_text(json.dumps(numbers))
    (line,) = compare_evaluations(report, made, same_format=False).differences
    assert line.startswith("metrics.json / models / ours / box / overall / dice")


def test_a_small_difference_may_be_allowed(made: Path, report: Path) -> None:
    dice = json.loads((report / "metrics.json").read_text())["models"]["ours"]["box"]["overall"]["dice"]
    _change(report / "metrics.json", repr(dice), repr(dice + 1e-4))
    assert compare_evaluations(report, made, tolerance=1e-3).differences == []
    assert len(compare_evaluations(report, made, tolerance=1e-5).differences) == 1


def test_a_missing_object_is_named(made: Path, report: Path) -> None:
    lines = (report / "objects.csv").read_text().splitlines()
    (report / "objects.csv").write_text("\n".join(lines[:-1]) + "\n")
    differences = compare_evaluations(report, made).differences
    assert all(line.startswith(f"objects.csv, line {len(lines)}, ") for line in differences)
    assert "dice: nothing in the report" in " ".join(differences)


def test_a_swapped_checkpoint_is_named_before_anything_is_scored(
    report: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = official.read_bytes()
    monkeypatch.setattr("train.evaluation.verify.run_evaluation", None)
    content = torch.load(official)
    next(iter(content["model"].values())).add_(1e-3)
    torch.save(content, official)
    (line,) = verify_report(report).differences
    assert re.match(rf"weights of ours: {official}: SHA-256 \w{{12}} in the report, now \w{{12}}$", line)
    official.unlink()
    assert verify_report(report).differences == [f"weights of ours: {official} does not exist"]
    official.write_bytes(kept)


def test_another_store_is_named(report: Path, sample_source: Path, store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    build_store(sample_source, other, BuildConfig(size_px=128, seed=1))
    _change(
        report / "metrics.json", f'"settings": {{\n  "store": "{store.path}"', f'"settings": {{\n  "store": "{other}"'
    )
    (line,) = verify_report(report).differences
    assert re.match(rf"store {other}: SHA-256 \w{{12}} in the report, now \w{{12}}$", line)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not the result of an evaluation"),
        ("{}", "does not record the settings"),
        ('{"settings": {"store": "s", "flavor": 1}}', "has damaged settings (flavor: "),
    ],
)
def test_a_report_that_cannot_be_verified_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        verify_report(tmp_path)


def test_the_command_line_is_in_the_report_and_the_numbers(made: Path) -> None:
    assert json.loads((made / "metrics.json").read_text())["made_by"]["command"] == COMMAND
    assert (
        "Made by <code>bcss-train evaluate s.zarr --checkpoint &#39;a model.pt&#39;</code>"
        in (made / "report.html").read_text()
    )


def test_the_report_has_a_row_for_exact_and_for_moved_prompts(made: Path) -> None:
    change = json.loads((made / "metrics.json").read_text())["jitter"]["ours"]["box"]["0.1"]["change"]["value"]
    rows = re.findall(
        r"<tr><td>ours</td><td class=\"word\">box</td><td class=\"word\">(exact|up to 0.1)</td>.*",
        (made / "report.html").read_text(),
    )
    assert rows == ["exact", "up to 0.1"]
    assert f"<td>{change:+.3f}" in (made / "report.html").read_text()


def test_metrics_have_what_a_repetition_needs(made: Path, official: Path, store: Store) -> None:
    numbers = json.loads((made / "metrics.json").read_text())
    assert EvaluationSettings.model_validate(numbers["settings"]).checkpoints == (f"ours={official}",)
    asked = numbers["protocol"]
    assert asked["networks"] == {"ours": {"size": "nano", "image_size_px": 128}}
    assert asked["classes"] == {str(info.code): info.name for info in store.manifest.classes}
    assert (asked["object_kind"], asked["resolution_px"], asked["store"]) == ("label", 128, store.path)
    assert asked["weights"]["ours"]["path"] == str(official)


def test_the_command_names_differences_and_exits_with_1(report: Path, run_command: RunCommand) -> None:
    dice = json.loads((report / "metrics.json").read_text())["models"]["ours"]["box"]["overall"]["dice"]
    _change(report / "metrics.json", repr(dice), "0.5")
    code, out, err = run_command("verify", report)
    assert code == 1
    assert f"metrics.json / models / ours / box / overall / dice: 0.5 in the report, {dice!r} when scored again" in out
    assert err.splitlines() == [
        f"bcss-train: error: {report}: has 1 difference, listed above; "
        "find the files that made it, or evaluate again with --overwrite"
    ]
