import pytest

from train.output.console_table import mark_of, print_scores


def test_marks_tell_why_a_score_says_less() -> None:
    result = {"seen_patients": {"tuned": {}}, "oracles": {"baseline:box": ["centroid"]}}
    assert mark_of(result, "tuned", "box") == "†"
    assert mark_of(result, "baseline:box", "centroid") == "‡"
    assert mark_of(result, "baseline:box", "box") == mark_of(result, "other", "box") == ""


def test_table_shows_names_with_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    primary = {"value": 0.5, "ci95": None, "few_patients": True, "patients": 1}
    scores = {"dice": 0.5, "iou": 0.4, "n": 2, "patients": 1, "class_mean": {"dice": primary, "iou": primary}}
    print_scores({"seen_patients": {}, "oracles": {}, "models": {"best[/old]": {"box": {"overall": scores}}}})
    assert "best[/old]" in capsys.readouterr().out


def test_no_name_is_cut_short(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "a_model_with_quite_a_long_name"
    mean = {"value": 0.5, "ci95": None, "few_patients": True, "patients": 1}
    scores = {"dice": 0.5, "iou": 0.4, "n": 2, "patients": 1, "class_mean": {"dice": mean, "iou": mean}}
    print_scores({"seen_patients": {}, "oracles": {}, "models": {name: {"box": {"overall": scores}}}})
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip().startswith("a_model"))
    cells = [line.split()[0] for line in lines[first:] if line.strip()][:2]
    assert "".join(cells) == name


def test_dice_after_the_first_and_the_last_click_are_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    mean = {"value": 0.5, "ci95": (0.4, 0.6), "few_patients": True, "patients": 1}
    scores = {"dice": 0.5, "iou": 0.4, "n": 1234, "patients": 12, "class_mean": {"dice": mean, "iou": mean}}
    clicked = {**scores, "dice_after_clicks": {"0": 0.5, "1": 0.61, "3": 0.72, "5": 0.83}}
    models = {"run/best": {"centroid": {"overall": clicked}}, "baseline:zero_shot": {"centroid": {"overall": scores}}}
    print_scores({"seen_patients": {}, "oracles": {}, "models": models})
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    rows = [line.split() for line in lines if line.split()[1:2] == ["centroid"]]
    ends = [["0.610", "0.830", "1234", "12*"], ["-", "-", "1234", "12*"]]
    assert [row[-4:] for row in rows] == ends
