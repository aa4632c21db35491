"""The initial weights of a checkpoint are rebuilt from its seed, or loaded from its `--init` file."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import CheckpointError
from schemas.store.store import Store
from train.config import FitConfig
from train.fit.state import Run, RunIdentity, start_run
from train.model.checkpoint import WeightsFile, load_checkpoint, load_identified, save_checkpoint
from train.model.loading import load_mask_predictor
from train.model.promptable import PromptableSam
from train.score.evaluate import evaluate
from train.score.initial_weights import InitialWeights, load_initial_weights
from train.score.protocol import ScoringProtocol

CPU = torch.device("cpu")
ORIGIN = RunIdentity("", 1, 1)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _begin(folder: Path, name: str, init: Path | None = None, seed: int = 7) -> tuple[Path, Run]:
    """Save a run before its first step."""
    run = start_run(FitConfig(model="nano", image_size=128, seed=seed, init=init), ORIGIN, CPU)
    path = folder / f"{name}.pt"
    run.state().save(path)
    return path, run


@pytest.fixture
def official(nano: PromptableSam, tmp_path: Path) -> Path:
    path = tmp_path / "official.pt"
    save_checkpoint(path, {"model": nano.sam.state_dict()})
    return path


def test_start_is_the_seed_or_the_init_once_for_all(nano: PromptableSam, official: Path, tmp_path: Path) -> None:
    (ours, begun), (again, _), (tuned, _) = (
        _begin(tmp_path, "ours"),
        _begin(tmp_path, "again"),
        _begin(tmp_path, "tuned", official),
    )
    initial = load_initial_weights([ours, again, tuned, official], CPU)
    assert initial.start_of == {
        str(ours): "baseline:untrained",
        str(again): "baseline:untrained",
        str(tuned): "baseline:zero_shot",
    }
    found = initial.predictors
    assert list(found) == ["baseline:untrained", "baseline:zero_shot"]
    for name, expected in (("baseline:untrained", begun.model), ("baseline:zero_shot", nano)):
        weights = found[name].model.state_dict()
        assert all(torch.equal(weights[key], weight) for key, weight in expected.state_dict().items())
    assert found["baseline:untrained"].weights is None
    assert found["baseline:zero_shot"].weights == WeightsFile(str(official), _sha256(official))


def test_a_run_begins_with_the_average_that_its_init_predicts_with(official: Path, tmp_path: Path) -> None:
    content = load_checkpoint(official)
    average = {key: weight + 1 if weight.is_floating_point() else weight for key, weight in content["model"].items()}
    averaged = tmp_path / "averaged.pt"
    save_checkpoint(averaged, {**content, "ema": {"model": average}})
    path, run = _begin(tmp_path, "tuned", averaged)
    start = load_initial_weights([path], CPU).predictors["baseline:zero_shot"]
    for model in (run.model, start.model, load_mask_predictor(averaged, CPU, "nano", 128).model):
        weights = model.sam.state_dict()
        assert all(torch.equal(weights[key], weight) for key, weight in average.items())


def test_starts_from_a_file_that_is_gone_or_another_are_named_and_left_out(
    official: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(official.read_bytes())
    lost, _ = _begin(tmp_path, "lost", official)
    replaced, run = _begin(tmp_path, "replaced", other)
    assert run.init_sha256 == _sha256(official)
    official.unlink()
    content = load_checkpoint(other)
    next(iter(content["model"].values())).add_(1)
    save_checkpoint(other, content)
    with caplog.at_level(logging.WARNING):
        assert load_initial_weights([lost, replaced], CPU) == InitialWeights({}, {})
    assert "lost.pt was trained from" in caplog.text
    assert "official.pt, which no longer exists" in caplog.text
    assert "replaced.pt was trained from" in caplog.text
    assert "other.pt, which has changed since" in caplog.text


def test_two_files_of_one_path_are_two_starts(official: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before, _ = _begin(tmp_path, "before", official)
    content = load_checkpoint(official)
    next(iter(content["model"].values())).add_(1)
    save_checkpoint(official, content)
    after, run = _begin(tmp_path, "after", official)
    # The file holds the second version, so only the second checkpoint finds its initial weights.
    found = load_initial_weights([before, after], CPU).predictors
    assert list(found) == ["baseline:zero_shot"]
    assert found["baseline:zero_shot"].weights == WeightsFile(str(official), run.init_sha256 or "")
    assert "before.pt was trained from" in caplog.text
    assert "official.pt, which has changed since" in caplog.text


def test_one_file_under_two_paths_is_one_start(
    official: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(official.read_bytes())
    (ours, _), (other, _), (old, _) = (
        _begin(tmp_path, "ours", official),
        _begin(tmp_path, "other", copy),
        _begin(tmp_path, "old", official),
    )
    content = load_checkpoint(old)
    del content["init_sha256"]
    save_checkpoint(old, content)
    found = load_initial_weights([ours, other, old], CPU)
    assert list(found.predictors) == ["baseline:zero_shot"]
    assert found.start_of == dict.fromkeys(map(str, (ours, other, old)), "baseline:zero_shot")
    assert "old.pt does not record the SHA-256 of its --init file" in caplog.text


def test_each_of_several_starts_has_a_name_of_its_own(tmp_path: Path) -> None:
    runs = [_begin(tmp_path / f"r{seed}", "best", seed=seed) for seed in range(3)]
    initial = load_initial_weights([path for path, _ in runs], CPU)
    found = initial.predictors
    assert initial.start_of == dict(zip(map(str, [path for path, _ in runs]), found, strict=True))
    assert list(found) == ["baseline:untrained", *(f"baseline:untrained:{path}" for path, _ in runs[1:])]
    for predictor, (_, run) in zip(found.values(), runs, strict=True):
        weights = predictor.model.state_dict()
        assert all(torch.equal(weights[key], weight) for key, weight in run.model.state_dict().items())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"init_sha256": 3}, "has an invalid init_sha256 3"),
        ({"config": {"init": 3}}, "does not record a valid --init and --seed"),
    ],
)
def test_a_start_that_is_nonsense_is_refused(wrong: dict[str, object], said: str, tmp_path: Path) -> None:
    path, _ = _begin(tmp_path, "ours")
    save_checkpoint(path, load_checkpoint(path) | wrong)
    with pytest.raises(CheckpointError, match=f"ours.pt: {said}"):
        load_initial_weights([path], CPU)


def test_an_official_start_is_also_scored_at_its_own_size(
    nano: PromptableSam, official: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuned, _ = _begin(tmp_path, "tuned", official)
    again, _ = _begin(tmp_path, "again", tuned)
    with caplog.at_level(logging.INFO):
        found = load_initial_weights([tuned], CPU, at_full_size=True).predictors
    assert [(name, p.model.image_size) for name, p in found.items()] == [
        ("baseline:zero_shot", 128),
        ("baseline:zero_shot@1024px", 1024),
    ]
    assert "official.pt is also scored at 1024 px, which takes 64 times as long; --no-zero-shot" in caplog.text
    weights = found["baseline:zero_shot@1024px"].model.state_dict()
    assert all(torch.equal(weights[key], weight) for key, weight in nano.state_dict().items())
    # A start of this project was trained at its own size, and random weights were trained at none.
    untrained, _ = _begin(tmp_path, "untrained")
    assert list(load_initial_weights([again], CPU, at_full_size=True).predictors) == ["baseline:zero_shot"]
    assert list(load_initial_weights([untrained], CPU, at_full_size=True).predictors) == ["baseline:untrained"]
    assert list(load_initial_weights([tuned], CPU).predictors) == ["baseline:zero_shot"]


def test_an_evaluation_says_which_weights_it_scored(store: Store, official: Path, tmp_path: Path) -> None:
    tuned, _ = _begin(tmp_path, "tuned", official)
    predictors = {"tuned": load_mask_predictor(tuned, CPU), **load_initial_weights([tuned], CPU).predictors}
    result = evaluate(store, predictors, ScoringProtocol("test", ("box",))).result
    assert result["protocol"]["weights"] == {
        "tuned": {"path": str(tuned), "sha256": _sha256(tuned)},
        "baseline:zero_shot": {"path": str(official), "sha256": _sha256(official)},
    }


def test_the_digest_is_of_the_bytes_that_were_read(official: Path, tmp_path: Path, monkeypatch) -> None:
    content, path = load_checkpoint(official), tmp_path / "best.pt"
    save_checkpoint(path, content)
    expected, load = _sha256(path), torch.load

    def while_another_takes_its_place(*args: Any, **kwargs: Any) -> Any:
        changed = {**content["model"], "no_mem_embed": content["model"]["no_mem_embed"] + 1}
        save_checkpoint(path, {"model": changed})
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", while_another_takes_its_place)
    read, weights = load_identified(path)
    assert weights.sha256 == expected != _sha256(path)
    assert torch.equal(read["model"]["no_mem_embed"], content["model"]["no_mem_embed"])
