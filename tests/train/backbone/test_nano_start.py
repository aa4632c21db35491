"""The start that comes with the project: `--init nano`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from schemas.errors import CheckpointError, ConfigError
from schemas.store.store import Store
from train.backbone.nano_start import NANO_IMAGE_SIZE, NANO_START, init_file
from train.cli import main
from train.config import FitConfig, read_config
from train.fit.state import RunIdentity, start_run
from train.fit.trainer import fit
from train.model.checkpoint import load_checkpoint
from train.model.loading import load_mask_predictor
from train.model.seen_patients import digest_of
from train.score.initial_weights import load_initial_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(short_store: Store) -> Store:
    """The store with three validation tiles, because each run validates at least twice."""
    return short_store


def test_init_nano_implies_the_network_and_loads_the_weights_of_the_package() -> None:
    config = read_config(None, {"init": Path("nano"), "image_size": 128})
    assert config.model == "nano"
    run = start_run(config, RunIdentity("", 1, 1), CPU)
    kept = load_checkpoint(NANO_START)
    own = run.model.sam.state_dict()
    assert all(torch.equal(own[name], weight.float()) for name, weight in kept["model"].items())
    assert kept["model"]["no_mem_embed"].dtype == torch.float16
    assert NANO_START.stat().st_size < 6e6
    assert set(run.seen.trained) == set(kept["patients"]["trained"])


def test_init_nano_implies_the_image_size_of_its_training(tmp_path: Path) -> None:
    kept = load_checkpoint(NANO_START)
    assert read_config(None, {"init": Path("nano")}).image_size == kept["image_size"] == NANO_IMAGE_SIZE == 128
    # Another size may be given, also by a recipe, and a run's own settings have theirs.
    assert read_config(None, {"init": Path("nano"), "image_size": 1024}).image_size == 1024
    assert read_config(None, {"init": Path("nano"), "recipe": "medsam2"}).image_size == 512
    older = tmp_path / "config.json"
    older.write_text(read_config(None, {"init": Path("nano"), "image_size": 1024}).model_dump_json())
    assert read_config(older, {}).image_size == 1024
    assert read_config(None, {"model": "nano"}).image_size == 1024


def test_another_network_does_not_take_it() -> None:
    config = read_config(None, {"init": Path("nano"), "model": "tiny", "image_size": 128})
    with pytest.raises(CheckpointError, match=r"does not fit the model tiny.*--model nano"):
        start_run(config, RunIdentity("", 1, 1), CPU)


def test_a_file_of_that_name_is_still_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("init: ./nano\n")
    for config in (
        read_config(None, {"init": "./nano"}),
        read_config(None, {"init": tmp_path / "nano"}),
        read_config(tmp_path / "run.yaml", {}),
    ):
        assert (config.init, config.model, config.image_size) == (tmp_path / "nano", "tiny", 1024)
    assert init_file(tmp_path / "nano") == tmp_path / "nano"
    (tmp_path / "run.yaml").write_text("init: nano\n")
    config = read_config(tmp_path / "run.yaml", {})
    assert (config.init, config.model) == (Path("nano"), "nano")
    # Neither the command line nor the record of a run turns the one into the other.
    again = FitConfig.model_validate_json(config.model_dump_json())
    assert (again.init, again.model) == (Path("nano"), "nano")


def test_command_line_tells_the_start_from_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("schemas.store.store.open_store", lambda path: path)
    asked: list[Path | None] = []

    def note(_store: object, config: FitConfig) -> None:
        asked.append(config.init)
        raise ConfigError("--plan", "is not needed here", "read on")

    monkeypatch.setattr("train.fit.plan.plan_run", note)
    for init in ("nano", "./nano"):
        monkeypatch.setattr(sys, "argv", ["bcss-train", "fit", "s.zarr", "--plan", "--init", init])
        with pytest.raises(SystemExit):
            main()
    assert asked == [Path("nano"), tmp_path / "nano"]


def test_run_that_began_with_it_is_scored_beside_it_wherever_the_package_lies(tmp_path: Path) -> None:
    run = start_run(read_config(None, {"init": Path("nano"), "image_size": 128}), RunIdentity("", 1, 1), CPU)
    run.state().save(tmp_path / "own.pt")
    assert load_checkpoint(tmp_path / "own.pt")["config"]["init"] == "nano"
    found = load_initial_weights([tmp_path / "own.pt"], CPU).predictors
    # This project trained the start, so the random weights that it would have without that are scored, too.
    assert list(found) == ["baseline:zero_shot", "baseline:untrained"]
    untrained = start_run(read_config(None, {"model": "nano", "image_size": 128}), RunIdentity("", 1, 1), CPU).model
    for name, weight in untrained.state_dict().items():
        assert torch.equal(found["baseline:untrained"].model.state_dict()[name], weight), name
    weights = found["baseline:zero_shot"].weights
    # Reports name it as the flag does, and not by a folder of this machine.
    assert weights is not None
    assert weights.path == "nano"


def test_its_patients_are_nobody_elses(store: Store) -> None:
    seen = load_mask_predictor(NANO_START, CPU).seen
    assert seen is not None
    assert len(seen.trained) > 50
    assert not seen.among(set(store.column("tiles/patient").tolist()))
    # Both of its kinds of tissue: each ROI in its own colors, and textures.
    assert {digest_of("TCGA-A1-N000"), digest_of("TCGA-A1-T000")} <= seen.trained | seen.validated


def test_predictors_use_the_average_of_a_checkpoint(tmp_path: Path) -> None:
    settings = {"init": Path("nano"), "image_size": 128, "optimizer.ema_decay": 0.9}
    run = start_run(read_config(None, settings), RunIdentity("", 1, 1), CPU)
    name = "sam_mask_decoder.conv_s0.weight"
    with torch.no_grad():
        run.model.sam.get_parameter(name).add_(1.0)
    run.state().save(tmp_path / "checkpoint.pt")
    used = load_mask_predictor(tmp_path / "checkpoint.pt", CPU).model.sam.get_parameter(name)
    torch.testing.assert_close(used, run.averaged_model.sam.get_parameter(name))
    assert not torch.equal(used, run.model.sam.get_parameter(name))


def test_summary_compares_the_best_weights_with_it_and_not_with_the_untrained_model(
    store: Store, tmp_path: Path
) -> None:
    flags = {"init": Path("nano"), "image_size": 128, "max_steps": 1, "prompt": "box", "device": "cpu", "workers": 0}
    found = fit(store, read_config(None, flags), tmp_path / "run")["against_start"]["box"]
    assert found["start"] == "baseline:zero_shot"
    # One step with the usual rates changes next to nothing, while an untrained model is far below.
    assert abs(found["dice"]) < 0.02
