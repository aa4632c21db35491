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


@pytest.mark.parametrize(
    ("width", "shown"),
    [(80, ["+1", "+7"]), (88, ["+1", "+3", "+7"]), (120, ["+1", "+3", "+5", "+7"])],
)
def test_dice_after_clicks_is_shown_as_far_as_it_fits(
    width: int, shown: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    mean = {"value": 0.5, "ci95": (0.4, 0.6), "few_patients": True, "patients": 1}
    scores = {"dice": 0.9, "iou": 0.4, "n": 1234, "patients": 12, "class_mean": {"dice": mean, "iou": mean}}
    # Dice and the columns beside it are the same mean. The mean over objects is another one.
    after = {str(clicks): {"value": 0.5 + clicks / 100} for clicks in (0, 1, 3, 5, 7)}
    clicked = {**scores, "class_mean_after_clicks": after, "dice_after_clicks": dict.fromkeys(after, 0.9)}
    models = {"run/best": {"centroid": {"overall": clicked}}, "baseline:zero_shot": {"centroid": {"overall": scores}}}
    print_scores({"seen_patients": {}, "oracles": {}, "models": models})
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert [word for word in lines[1].split() if word.startswith("+")] == shown
    rows = [line.split() for line in lines if line.split()[1:2] == ["centroid"]]
    expected = [f"{after[head[1:]]['value']:.3f}" for head in shown]
    assert [row[2:3] + row[6:] for row in rows] == [
        ["0.500", *expected, "1234", "12*"],
        ["0.500", *["-"] * len(shown), "1234", "12*"],
    ]
