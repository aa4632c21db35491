import pytest

from train.output.console_table import print_scores


def test_table_shows_names_with_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    primary = {"value": 0.5, "ci95": None, "few_patients": True, "patients": 1}
    scores = {"dice": 0.5, "iou": 0.4, "n": 2, "patients": 1, "class_mean": {"dice": primary, "iou": primary}}
    print_scores({"seen_patients": {}, "oracles": {}, "models": {"best[/old]": {"box": {"overall": scores}}}})
    assert "best[/old]" in capsys.readouterr().out
