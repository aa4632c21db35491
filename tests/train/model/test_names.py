"""Names of models in an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigError
from train.model.names import name_checkpoints


def _names(*given: str) -> list[str]:
    return [item.name for item in name_checkpoints(given)]


def test_checkpoint_of_a_run_is_named_after_run_and_file() -> None:
    assert _names("a/run/checkpoints/best.pt", "sam2.1_hiera_tiny.pt") == ["run/best", "sam2.1_hiera_tiny"]
    assert _names("run/checkpoints/best.pt", "run/checkpoints/checkpoint.pt") == ["run/best", "run/checkpoint"]


def test_names_are_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("run/evaluation", "run/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    for folder, path in (
        ("run/evaluation", "../checkpoints/best.pt"),
        ("run/evaluation", "../../run/checkpoints/best.pt"),
        ("run/checkpoints", "./best.pt"),
        (".", "run/./checkpoints/best.pt"),
    ):
        monkeypatch.chdir(tmp_path / folder)
        assert _names(path) == ["run/best"]
    # Two paths of one file are refused, like one path that is given twice.
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(ConfigError, match="of another checkpoint"):
        _names("checkpoints/best.pt", "../run/checkpoints/best.pt")


def test_folders_are_added_until_names_differ() -> None:
    assert _names("a/run/checkpoints/best.pt", "b/run/checkpoints/best.pt") == ["a/run/best", "b/run/best"]
    assert _names("x/w.pt", "y/w.pt") == ["x/w", "y/w"]


def test_user_may_name_a_model(tmp_path: Path) -> None:
    assert [(item.name, str(item.path)) for item in name_checkpoints(["ours=run/w.pt"])] == [("ours", "run/w.pt")]
    (tmp_path / "a=b.pt").write_text("")
    assert _names(str(tmp_path / "a=b.pt")) == ["a=b"]


@pytest.mark.parametrize("given", [("m=a.pt", "m=b.pt"), ("run/w.pt", "run/w.pt"), ("baseline:box=a.pt",)])
def test_names_that_cannot_be_told_apart_are_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--checkpoint"):
        name_checkpoints(given)
