import json
import logging
import re
import signal
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2

from prep.build import build_store
from prep.config import BuildConfig
from prep.source.discover import RoiSource
from schemas.errors import CheckpointError, ConfigError, TrainingError
from schemas.manifest import Split
from schemas.store.store import Store, open_store
from train.backbone.sam2 import SAM2
from train.config import FitConfig, read_config
from train.data.collate import collate
from train.data.dataset import SampleOptions, SampleRequest, TileDataset
from train.fit.average import decay_after
from train.fit.epoch_end import end_epoch, validate_start
from train.fit.forward import TrainingForward
from train.fit.prepare import prepare_run
from train.fit.state import RunIdentity, start_run
from train.fit.step import TrainStep
from train.fit.trainer import fit
from train.fit.validate import Validation, validate
from train.loss.batch_loss import batch_loss
from train.model.checkpoint import load_checkpoint
from train.model.promptable import PromptableSam
from train.model.train_state import TrainState
from train.runtime.device import out_of_memory_as_error
from train.runtime.distributed import World
from train.runtime.machine import Machine
from train.runtime.run_log import RunLog, read_steps
from train.runtime.stop import StopRequest
from train.score.answers import tiles_with_objects
from train.settings import OptimizerConfig

RATES = OptimizerConfig(lr=1e-4, vision_lr=1e-4)
FAST = FitConfig(
    model="nano",
    image_size=128,
    batch_size=2,
    max_objects=2,
    optimizer=RATES,
    workers=0,
    device="cpu",
    seed=3,
    report=False,
)

CPU = torch.device("cpu")


def _with(**changes: object) -> FitConfig:
    return FitConfig.model_validate({**FAST.model_dump(), **changes})


@pytest.fixture(scope="module")
def straight(store: Store, module_path: Path) -> Path:
    """The folder of a run of four steps, without an interruption."""
    told: list[tuple[str, int, int]] = []
    fit(
        store,
        _with(max_steps=4, report=True, optimizer={"lr": 1e-4, "vision_lr": 5e-5, "warmup_steps": 1}),
        module_path,
        on_tile=lambda *done: told.append(done),
    )
    tiles = len(tiles_with_objects(store, "val"))
    whole = [(done, tiles) for done in range(1, tiles + 1)]
    assert told == [(doing, *done) for doing in ("validate", "validate", "report") for done in whole]
    return module_path


def test_run_writes_all_its_files(straight: Path) -> None:
    content = load_checkpoint(straight / "checkpoints" / "checkpoint.pt")
    for key in ("model", "optimizer", "epoch", "loss", "steps", "time_elapsed", "best_meter_values", "config"):
        assert key in content
    assert content["steps"] == 4
    assert (straight / "checkpoints" / "best.pt").exists()
    assert list((straight / "tensorboard").iterdir())
    assert "baseline:box" in (straight / "report.html").read_text()
    assert json.loads((straight / "config.json").read_text())["image_size"] == 128
    summary = json.loads((straight / "summary.json").read_text())
    for key in ("steps", "epochs", "loss_first", "loss_last", "images_per_s", "data_wait_fraction"):
        assert summary[key] >= 0
    assert summary["peak_memory_bytes"] > 1e6
    assert summary["device"] == "cpu"
    assert summary["val"]["box"]["overall"]["n"] > 0
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "event" not in line] == [1, 2, 3, 4]
    assert lines[-1]["event"] == "epoch"
    assert all(0 <= line["data_wait_s"] <= line["step_s"] for line in lines if "event" not in line)
    assert all(len(line["tiles"]) == 2 for line in lines if "event" not in line)


def test_learning_rates_rise_and_then_fall_along_a_cosine(straight: Path) -> None:
    shares = [0.5, 1.0, 0.55, 0.1]
    steps = read_steps(straight)
    assert [step.lr for step in steps] == pytest.approx([1e-4 * share for share in shares])
    assert [step.vision_lr for step in steps] == pytest.approx([5e-5 * share for share in shares])


def test_earlier_run_is_not_overwritten(store: Store, straight: Path) -> None:
    before = (straight / "checkpoints" / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match="belongs to an earlier run; give --resume"):
        fit(store, FAST, straight)
    assert (straight / "checkpoints" / "checkpoint.pt").read_bytes() == before


def test_without_validation_tiles_no_best_is_written_and_a_warning_says_so(write_roi, tmp_path: Path, caplog) -> None:
    labels = np.full((64, 64), 2, np.uint8)
    labels[10:40, 10:40] = 1
    source = write_roi("only", labels)
    build_store(source, tmp_path / "s.zarr", BuildConfig(size_px=64))
    with caplog.at_level(logging.WARNING):
        summary = fit(open_store(tmp_path / "s.zarr"), _with(epochs=3, patience=1, report=True), tmp_path / "run")
    # Without scores, patience cannot end the run.
    assert summary["epochs"] == 3
    assert summary["val"] is None
    report = (tmp_path / "run" / "report.html").read_text()
    assert "<svg" in report
    assert 'id="scores"' not in report
    assert not (tmp_path / "run" / "checkpoints" / "best.pt").exists()
    assert "no validation tile" in caplog.text
    assert "random weights" in caplog.text


def test_init_starts_from_the_given_weights(store: Store, straight: Path, tmp_path: Path, caplog) -> None:
    init = straight / "checkpoints" / "checkpoint.pt"
    rates = {"lr": 1e-12, "vision_lr": 1e-12, "weight_decay": 0}
    with caplog.at_level(logging.INFO):
        fit(store, _with(max_steps=1, init=init, optimizer=rates), tmp_path)
    assert "as SAM2ImagePredictor does" in caplog.text
    ours, theirs = load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt"), load_checkpoint(init)
    for name, weight in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], weight, rtol=1e-5, atol=1e-8)


def test_init_is_checked_with_corrections_too(store: Store, straight: Path, tmp_path: Path, caplog) -> None:
    init = straight / "checkpoints" / "checkpoint.pt"
    with caplog.at_level(logging.INFO):
        fit(store, _with(max_steps=1, init=init, corrections=2), tmp_path)
    assert "as SAM2ImagePredictor does" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # from torch, while it traces
def test_compiled_run_equals_the_plain_run(store: Store, tmp_path: Path) -> None:
    """The run has a smaller last batch, corrections and validation."""
    for compiled in (False, True):
        config = _with(epochs=1, batch_size=20, corrections=1, prompt="mixed", compile=compiled)
        fit(store, config, tmp_path / str(compiled))
    plain, compiled = (read_steps(tmp_path / str(compiled)) for compiled in (False, True))
    assert len(plain) == 2
    assert len(plain[1].tiles) < len(plain[0].tiles)
    for one, other in zip(plain, compiled, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
    ours, theirs = (
        json.loads((tmp_path / str(name) / "summary.json").read_text())["val"]["box"] for name in (False, True)
    )
    assert ours["overall"]["dice"] == pytest.approx(theirs["overall"]["dice"], abs=0.02)


def test_loss_that_is_not_finite_ends_the_run_and_names_the_tiles(store: Store, tmp_path: Path) -> None:
    rates = {"lr": 1e20, "vision_lr": 1e20, "clip_norm": 1e30}
    with pytest.raises(TrainingError, match=r"step \d+, tiles \[\d+, \d+\]: loss or gradient is not finite"):
        fit(store, _with(max_steps=3, save_every_steps=1, optimizer=rates), tmp_path)
    # The update comes before the loss is checked, but the spoiled weights are not saved.
    saved = load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt")
    assert saved["steps"] == len(read_steps(tmp_path))
    assert all(weight.isfinite().all() for weight in saved["model"].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_cuda_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        fit(store, _with(device="cuda"), tmp_path)


def test_tiles_of_a_failed_batch_are_written_to_a_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        fit(store, _with(max_steps=3, optimizer={"lr": 1e20, "vision_lr": 1e20, "clip_norm": 1e30}), tmp_path)
    failed = json.loads((tmp_path / "failed_batch.0.json").read_text())
    assert len(failed["tiles"]) == 2
    assert failed["step"] >= 1


def test_adapters_learn_in_a_frozen_trunk_and_freeze_decides_about_the_neck(store: Store) -> None:
    pytest.importorskip("peft", reason="the lora extra is not installed")
    config = _with(lora={"rank": 2}, freeze="decoder_and_neck")
    model = start_run(config, RunIdentity("", 1, 1), torch.device("cpu")).model
    sample = TileDataset(store.path, SampleOptions(128, "box"))[SampleRequest(0, 0)]
    batch = collate([sample])
    batch_loss(TrainingForward(model)(batch), batch, config.loss, 3.0).total.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any("lora_B" in name for name in trained)
    assert any("image_encoder.neck" in name for name in trained)
    assert not any("trunk" in name and "lora_" not in name for name in trained)


def test_error_about_full_memory_names_the_settings_to_lower() -> None:
    with (
        pytest.raises(TrainingError, match=r"batch of 2 images of 128 px with up to 2 objects") as caught,
        out_of_memory_as_error(FAST),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert "--batch-size" in str(caught.value)


def test_accumulated_batches_equal_one_large_batch(store: Store, tmp_path: Path) -> None:
    large = _with(max_steps=2, batch_size=4)
    small = _with(max_steps=2, batch_size=2, optimizer={**RATES.model_dump(), "accumulate": 2})
    fit(store, large, tmp_path / "large")
    fit(store, small, tmp_path / "small")
    for one, other in zip(read_steps(tmp_path / "large"), read_steps(tmp_path / "small"), strict=True):
        assert sorted(one.tiles) == sorted(other.tiles)
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)


def test_run_ends_after_epochs_without_a_better_score(store: Store, tmp_path: Path) -> None:
    # The learning rates are so small that no mask changes; at 1e-12, a mask gained a pixel on some machines.
    config = _with(epochs=30, batch_size=36, patience=1, optimizer={"lr": 1e-30, "vision_lr": 1e-30})
    summary = fit(store, config, tmp_path)
    # The first epoch does not beat the start.
    assert summary["epochs"] == 1


def test_an_average_changes_no_random_draw_of_the_run(store: Store, tmp_path: Path) -> None:
    states: list[torch.Tensor] = []
    for decay in (0.0, 0.9):
        fit(store, _with(max_steps=1, optimizer={**RATES.model_dump(), "ema_decay": decay}), tmp_path / str(decay))
        states.append(load_checkpoint(tmp_path / str(decay) / "checkpoints" / "checkpoint.pt")["rng"]["torch"])
    assert torch.equal(*states)


def test_average_of_weights_is_scored_and_saved(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    caplog.set_level(logging.INFO, "train.fit.epoch_end")
    name = "sam_mask_decoder.conv_s0.weight"
    trained: list[torch.Tensor] = []
    scored: list[torch.Tensor] = []

    class Noting(TrainStep):
        def launch(self, batches):
            made = super().launch(batches)
            trained.append(self.model.sam.get_parameter(name).detach().clone())
            return made

    def note(model: PromptableSam, *others: Any) -> Any:
        scored.append(model.sam.get_parameter(name).detach().clone())
        return validate(model, *others)

    monkeypatch.setattr("train.fit.prepare.TrainStep", Noting)
    monkeypatch.setattr("train.fit.epoch_end.validate", note)
    fit(store, _with(max_steps=3, optimizer={**RATES.model_dump(), "ema_decay": 0.9}), tmp_path)
    last = load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt")
    best = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    average = trained[0]
    for step, weight in enumerate(trained[1:], start=1):
        kept = decay_after(step, 0.9)
        average = kept * average + (1 - kept) * weight
    assert len(trained) == 3
    torch.testing.assert_close(last["ema"]["model"][name], average, rtol=0, atol=1e-7)
    # The start is validated first, then the average and the weights of the step; best.pt holds what scored best.
    assert len(scored) == 3
    torch.testing.assert_close(scored[1], average, rtol=0, atol=1e-7)
    assert torch.equal(scored[2], last["model"][name])
    place = {"average": 1, "raw": 2}[last["best_weights"]] if best["steps"] else 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    by_weights = lines[-1]["val_score_by_weights"]
    (line,) = [entry.getMessage() for entry in caplog.records if entry.getMessage().startswith("epoch 1")]
    assert f" ({max(by_weights, key=by_weights.__getitem__)}), " in line
    assert torch.equal(best["model"][name], scored[place])


def test_best_has_the_weights_of_the_epoch_with_the_best_score(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.7, 0.6, 0.7])
    saved: list[tuple[str, int]] = []
    monkeypatch.setattr("train.fit.epoch_end.validate", lambda *_: _validation(next(scores)))
    monkeypatch.setattr(TrainState, "save", lambda state, path: saved.append((path.name, state.steps)))
    monkeypatch.setattr("train.fit.epoch_end.save_last", lambda *_: None)
    run = start_run(FAST, RunIdentity("", 2, 1), CPU)
    machine = Machine(World(), CPU, StopRequest())
    with RunLog(None) as log:
        for run.steps in (1, 2, 3, 4):
            end_epoch(run, store, np.arange(1), machine, log, tmp_path / "checkpoint.pt")
    assert saved == [("best.pt", 1), ("best.pt", 2)]
    assert (run.best_score, run.epochs_since_best) == (0.7, 2)


def _validation(dice: float) -> Validation:
    overall = {"dice": dice, "iou": dice, "class_mean": {"dice": {"value": dice}, "iou": {"value": dice}}}
    return Validation({"box": {"overall": overall, "classes": {}}}, {}, [])


def test_validation_of_the_start_leaves_the_random_generators_alone(store: Store, monkeypatch, tmp_path: Path) -> None:
    run = start_run(FAST, RunIdentity("", 2, 1), CPU)
    monkeypatch.setattr("train.fit.epoch_end.validate", lambda *_: _validation(float(torch.rand(1))))
    before = torch.get_rng_state()
    with RunLog(None) as log:
        validate_start(run, store, np.arange(1), Machine(World(), CPU, StopRequest()), log, tmp_path / "checkpoint.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert run.scored_steps == 0


@pytest.mark.parametrize("wanted", [True, False])
def test_activations_are_kept_or_recomputed_as_configured(
    store: Store, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("train.fit.prepare.recompute_activations", lambda sam: asked.append(sam))
    machine = Machine(World(), CPU, StopRequest())
    prepared = prepare_run(store, _with(checkpoint_activations=wanted), machine, None)
    assert asked == ([prepared.run.model.sam] if wanted else [])


def test_only_adapters_are_trained_and_they_are_saved_merged(store: Store, straight: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="the lora extra is not installed")
    init = straight / "checkpoints" / "checkpoint.pt"
    config = _with(max_steps=2, init=init, lora={"rank": 4}, save_every_steps=1)
    fit(store, config, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "checkpoint.pt"
    merged, before = load_checkpoint(path)["model"], load_checkpoint(init)["model"]
    assert merged.keys() == before.keys()
    changed = {name for name in merged if "trunk" in name and not torch.equal(merged[name], before[name])}
    assert changed
    assert all(name.endswith(("attn.qkv.weight", "attn.proj.weight")) for name in changed)
    network = SAM2.networks["nano"]
    build_sam2(network.config_file, str(path), device="cpu", hydra_overrides_extra=list(network.overrides))
    adapter = load_checkpoint(path)["adapter"]
    # Each block has two layers with an adapter, and each adapter has two matrices.
    assert len(adapter) == 2 * 2 * network.trunk_blocks
    # peft itself can load the adapter, and merges it to the same weights.
    encoder = PromptableSam("nano", 128).sam.image_encoder
    encoder.load_state_dict({n.removeprefix("image_encoder."): w for n, w in before.items() if "image_encoder" in n})
    targets = [name for name, _ in encoder.named_modules() if name.endswith(("attn.qkv", "attn.proj"))]
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets), encoder)
    result = peft.set_peft_model_state_dict(encoder, adapter)
    assert not result.unexpected_keys
    layer = encoder.get_submodule(targets[0])
    weight = layer.base_layer.weight + layer.get_delta_weight("default")
    assert torch.equal(weight, merged[f"image_encoder.{targets[0]}.weight"])


def test_color_and_class_weights_reach_the_loss(store: Store, tmp_path: Path) -> None:
    plain = fit(store, _with(max_steps=1), tmp_path / "plain")
    stained = fit(store, _with(max_steps=1, augment={"stain": 0.3, "hue": 0.1}), tmp_path / "stained")
    weighted = fit(
        store, _with(max_steps=1, loss={"class_weights": dict.fromkeys(range(20), 2.0)}), tmp_path / "weighted"
    )
    assert stained["loss_first"] != plain["loss_first"]
    assert weighted["loss_first"] == pytest.approx(2 * plain["loss_first"], rel=1e-5)


def _all_train(rois: list[RoiSource]) -> dict[str, Split]:
    return {roi.patient: "train" for roi in rois}


def test_error_of_a_loading_process_shows_only_its_cause(sample_source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zarr"
    # Without a validation split, the loading process is the first to read an image.
    build_store(sample_source, copy, BuildConfig(size_px=128), splitter=_all_train)
    for shard in (copy / "images" / "c").rglob("*"):
        if shard.is_file():
            shard.unlink()
    config = read_config(
        None, {"model": "nano", "image_size": 128, "device": "cpu", "workers": 1, "max_steps": 1, "report": False}
    )
    before = set(active_children())
    with pytest.raises(TrainingError) as caught:
        fit(open_store(copy), config, tmp_path / "run")
    said = str(caught.value)
    cause = r"/.*copy.zarr/images row \d+: is missing; [^;]*"
    assert re.fullmatch(rf"a loading process, at the tiles \[[\d, ]+\]: {cause}; fix that, and give --resume", said)
    # The loading process has ended, although the error still exists.
    assert set(active_children()) <= before


def test_class_weights_are_compared_with_the_classes(store: Store, tmp_path: Path, caplog) -> None:
    with pytest.raises(ConfigError, match=r"^loss.class_weights: names no class of .*use codes from 1 \(tumor\)"):
        fit(store, _with(max_steps=1, loss={"class_weights": {99: 2.0}}), tmp_path / "none")
    fit(store, _with(max_steps=1, loss={"class_weights": {1: 2.0, 99: 2.0}}), tmp_path / "one")
    assert "loss.class_weights: [99] are not classes of the store" in caplog.text


def test_each_epoch_is_told_in_one_line(small_store: Store, tmp_path: Path, monkeypatch, caplog) -> None:
    """Loss and seconds are those of the epoch's own steps, also of those before the run was resumed."""
    caplog.set_level(logging.INFO, "train.fit.epoch_end")

    def told() -> list[str]:
        lines = [entry.getMessage() for entry in caplog.records if entry.name == "train.fit.epoch_end"]
        caplog.clear()
        return lines

    scores = iter([0.5, 0.7, 0.6])

    def scored(*arguments: Any) -> Any:
        found, dice = validate(*arguments), next(scores)
        for means in found.scores.values():
            means["overall"]["class_mean"] = {"dice": {"value": dice}, "iou": {"value": dice - 0.1}}
        return found

    monkeypatch.setattr("train.fit.epoch_end.validate", scored)
    config = _with(epochs=2, save_every_steps=1)
    fit(
        small_store,
        config,
        tmp_path,
        on_step=lambda record, _: signal.raise_signal(signal.SIGTERM) if record.step == 1 else None,
    )
    (start,) = told()
    assert start == "start: val Dice/IoU box 0.500/0.400, centroid 0.500/0.400"
    path = tmp_path / "metrics.jsonl"
    # The first step took 100 s, and the second one follows after the run is resumed.
    path.write_text(re.sub(r'"step_s": [\d.]+', '"step_s": 100.0', path.read_text()))
    fit(small_store, config, tmp_path, resume=True)
    first, second = told()
    steps = read_steps(tmp_path)
    own = [[step for step in steps if step.epoch == epoch] for epoch in (1, 2)]
    assert len(own[0]) == len(own[1]) > 1
    losses = [sum(step.loss for step in epoch) / len(epoch) for epoch in own]
    val = "val Dice/IoU box {0}, centroid {0}"
    said = re.fullmatch(
        rf"epoch 1: loss {losses[0]:.3f}, {val.format('0.700/0.600')}, \+0\.200 vs start, (\d+) s, best", first
    )
    assert said, first
    assert 100 <= int(said[1]) < 110
    said = re.fullmatch(
        rf"epoch 2: loss {losses[1]:.3f}, {val.format('0.600/0.500')}, \+0\.100 vs start, (\d+) s", second
    )
    assert said, second
    assert int(said[1]) < 10
    assert len(first) <= 105
