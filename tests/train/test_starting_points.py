"""What a checkpoint was trained from, found again by its seed or by its file."""

import logging
from pathlib import Path

import pytest
import torch

from schemas.errors import CheckpointError
from schemas.store import Store
from train.answers import Protocol
from train.checkpoint import WeightsFile, identify, load_checkpoint, save_checkpoint
from train.config import FitConfig
from train.evaluate import evaluate
from train.model import PromptableSam
from train.predict import load_predictor
from train.run import Origin, Run, start_run
from train.starting_points import load_starting_points

CPU = torch.device("cpu")
ORIGIN = Origin("", 1, 1)


def _begin(folder: Path, name: str, init: Path | None = None) -> tuple[Path, Run]:
    """A run that was saved before its first step."""
    run = start_run(FitConfig(image_size=128, seed=7, init=init), ORIGIN, CPU)
    path = folder / f"{name}.pt"
    save_checkpoint(path, run.content())
    return path, run


@pytest.fixture
def official(tiny: PromptableSam, tmp_path: Path) -> Path:
    path = tmp_path / "official.pt"
    save_checkpoint(path, {"model": tiny.sam.state_dict()})
    return path


def test_start_is_the_seed_or_the_init_once_for_all(tiny: PromptableSam, official: Path, tmp_path: Path) -> None:
    (ours, begun), (again, _), (tuned, _) = (
        _begin(tmp_path, "ours"),
        _begin(tmp_path, "again"),
        _begin(tmp_path, "tuned", official),
    )
    found = load_starting_points([ours, again, tuned, official], CPU)
    assert list(found) == ["baseline:untrained", "baseline:zero_shot"]
    for name, expected in (("baseline:untrained", begun.model), ("baseline:zero_shot", tiny)):
        weights = found[name].model.state_dict()
        assert all(torch.equal(weights[key], weight) for key, weight in expected.state_dict().items())
    assert found["baseline:untrained"].weights is None
    assert found["baseline:zero_shot"].weights == identify(official)


def test_starts_from_a_file_that_is_gone_or_another_are_named_and_left_out(
    official: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(official.read_bytes())
    lost, _ = _begin(tmp_path, "lost", official)
    replaced, run = _begin(tmp_path, "replaced", other)
    assert run.init_sha256 == identify(official).sha256
    official.unlink()
    content = load_checkpoint(other)
    next(iter(content["model"].values())).add_(1)
    save_checkpoint(other, content)
    with caplog.at_level(logging.WARNING):
        assert load_starting_points([lost, replaced], CPU) == {}
    assert "lost.pt was trained from" in caplog.text
    assert "official.pt, which is gone" in caplog.text
    assert "replaced.pt was trained from another" in caplog.text


def test_two_files_of_one_path_are_two_starts(official: Path, tmp_path: Path) -> None:
    before, _ = _begin(tmp_path, "before", official)
    content = load_checkpoint(official)
    next(iter(content["model"].values())).add_(1)
    save_checkpoint(official, content)
    after, run = _begin(tmp_path, "after", official)
    # The one that is left is the one that lies there.
    found = load_starting_points([before, after], CPU)
    assert list(found) == ["baseline:zero_shot"]
    assert found["baseline:zero_shot"].weights == WeightsFile(str(official), run.init_sha256 or "")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"init_sha256": 3}, "no digest of its --init"), ({"config": {"init": 3}}, "neither --init nor --seed")],
)
def test_a_start_that_is_nonsense_is_refused(wrong: dict[str, object], said: str, tmp_path: Path) -> None:
    path, _ = _begin(tmp_path, "ours")
    save_checkpoint(path, load_checkpoint(path) | wrong)
    with pytest.raises(CheckpointError, match=f"ours.pt: says {said}"):
        load_starting_points([path], CPU)


def test_an_evaluation_says_which_weights_it_scored(store: Store, official: Path, tmp_path: Path) -> None:
    tuned, _ = _begin(tmp_path, "tuned", official)
    predictors = {"tuned": load_predictor(tuned, CPU), **load_starting_points([tuned], CPU)}
    result = evaluate(store, predictors, Protocol("test", ("box",))).result
    assert result["protocol"]["weights"] == {
        "tuned": {"path": str(tuned), "sha256": identify(tuned).sha256},
        "baseline:zero_shot": {"path": str(official), "sha256": identify(official).sha256},
    }
