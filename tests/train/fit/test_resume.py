"""Runs that are killed, stopped or damaged can be resumed. The tests use real processes and real signals."""

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prep.build import build_store
from prep.config import BuildConfig
from schemas.errors import CheckpointError, ConfigError
from schemas.store.store import Store, open_store
from tests.train.same_runs import assert_same_runs, wait_for_step
from tests.warm_start import WarmProcess
from train.config import read_config
from train.fit.resume import readable_checkpoint
from train.fit.trainer import fit
from train.fit.validate import validate
from train.model.checkpoint import load_checkpoint, save_checkpoint
from train.runtime.run_log import StepRecord, read_steps

FLAGS = {
    "model": "nano",
    "image_size": 128,
    "batch_size": 2,
    "max_objects": 2,
    "max_steps": 12,
    "optimizer.lr": 1e-4,
    "optimizer.vision_lr": 1e-4,
    "optimizer.ema_decay": 0.5,
    "corrections": 1,
    "device": "cpu",
    "seed": 3,
    "report": False,
}


def _command(store: Store, out: Path, *more: str) -> list[str]:
    flags = [
        "--model",
        "nano",
        "--image-size",
        "128",
        "--batch-size",
        "2",
        "--max-objects",
        "2",
        "--max-steps",
        "12",
        "--lr",
        "1e-4",
    ]
    flags += [
        "--vision-lr",
        "1e-4",
        "--ema",
        "0.5",
        "--corrections",
        "1",
        "--device",
        "cpu",
        "--seed",
        "3",
        "--no-report",
    ]
    return [sys.executable, "-m", "train.cli", "fit", store.path, "--out", str(out), *flags, *more]


@pytest.fixture(scope="module")
def straight(store: Store, module_path: Path) -> Path:
    fit(store, read_config(None, {**FLAGS, "workers": 0}), module_path)
    return module_path


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_run_resumes_bit_for_bit(store: Store, straight: Path, tmp_path: Path, workers: int) -> None:
    command = _command(store, tmp_path, "--save-every-steps", "5", "--workers", str(workers))
    process = WarmProcess(command)
    wait_for_step(process, tmp_path, 7)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt")["steps"] == 5
    fit(store, read_config(None, {**FLAGS, "workers": 2 - workers}), tmp_path, resume=True)
    assert_same_runs(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_signal_ends_the_step_saves_the_run_and_exits_0(
    store: Store, straight: Path, tmp_path: Path, number: int
) -> None:
    process = WarmProcess(_command(store, tmp_path, "--workers", "1"), start_new_session=True)
    wait_for_step(process, tmp_path, 2)
    # Send the signal to the loading processes too, as a terminal and a scheduler do.
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    steps = load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt")["steps"]
    assert f"stopped by {signal.Signals(number).name} after step {steps}; --resume continues the run" in said
    assert json.loads((tmp_path / "summary.json").read_text())["stopped_by"] == signal.Signals(number).name
    assert steps < 12
    fit(store, read_config(None, {**FLAGS, "workers": 0}), tmp_path, resume=True)
    assert_same_runs(tmp_path, straight)


def test_previous_checkpoint_is_kept_unless_the_run_says_otherwise(store: Store, tmp_path: Path) -> None:
    names = {True: {"checkpoint.pt", "previous.pt"}, False: {"checkpoint.pt"}}
    settings = {**FLAGS, "workers": 0, "save_every_steps": 1}
    for keep, steps in ((True, 3), (False, 5)):
        config = read_config(None, {**settings, "max_steps": steps, "keep_previous": keep})
        fit(store, config, tmp_path, resume=not keep)
        kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
        assert kept - {"best.pt"} == names[keep]
        assert load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pt")["steps"] == steps


def test_damaged_checkpoint_is_named_and_the_one_before_is_used(
    store: Store, straight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(record: StepRecord, total: int) -> None:
        if record.step == 8:
            raise KeyboardInterrupt

    config = read_config(None, {**FLAGS, "workers": 0, "save_every_steps": 3})
    with pytest.raises(KeyboardInterrupt):
        fit(store, config, tmp_path, on_step=stop)
    last = tmp_path / "checkpoints" / "checkpoint.pt"
    last.write_bytes(last.read_bytes()[:100_000])
    before = load_checkpoint(tmp_path / "checkpoints" / "previous.pt")["steps"]
    with pytest.raises(KeyboardInterrupt):
        fit(store, config, tmp_path, resume=True, on_step=stop)
    # The damaged file never replaces the undamaged one.
    assert load_checkpoint(tmp_path / "checkpoints" / "previous.pt")["steps"] == before
    fit(store, config, tmp_path, resume=True)
    assert "checkpoint.pt: cannot be read" in caplog.text
    assert "resuming from the checkpoint before it" in caplog.text
    assert_same_runs(tmp_path, straight)


def test_other_settings_are_refused(store: Store, straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(
        ConfigError, match="was started with global_batch = 2, not 3; use its store, flags and number of processes"
    ):
        fit(store, read_config(None, {**FLAGS, "batch_size": 3}), tmp_path / "run", resume=True)


def test_resuming_a_finished_run_changes_nothing(store: Store, straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    files = [tmp_path / "run" / name for name in ("checkpoints/checkpoint.pt", "metrics.jsonl", "summary.json")]
    before = [path.read_bytes() for path in files]
    fit(store, read_config(None, {**FLAGS, "workers": 0}), tmp_path / "run", resume=True)
    assert [path.read_bytes() for path in files[:2]] == before[:2]
    then, now = json.loads(before[2]), json.loads(files[2].read_bytes())
    assert now | {"peak_memory_bytes": 0} == then | {"peak_memory_bytes": 0}


def test_run_killed_in_validation_validates_when_resumed(
    store: Store, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(None, {**FLAGS, "workers": 0, "save_every_steps": 1})

    calls: list[object] = []

    def die(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return validate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("train.fit.epoch_end.validate", die)
        with pytest.raises(KeyboardInterrupt):
            fit(store, config, tmp_path)
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["steps"] == 0
    with monkeypatch.context() as patch:
        patch.setattr("train.fit.trainer.validate_start", die)
        summary = fit(store, config, tmp_path, resume=True)
    assert summary["val"] is not None
    # The start is validated once, and its line is kept.
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "event" in line] == [0, 1]
    assert summary["start_val"] is not None
    # It is compared with the start that the killed process validated.
    of_straight = json.loads((straight / "summary.json").read_text())["against_start"]
    assert json.loads(json.dumps(summary["against_start"])) == of_straight
    assert (tmp_path / "checkpoints" / "best.pt").exists()
    assert_same_runs(tmp_path, straight)


def test_another_store_is_refused(store: Store, straight: Path, tmp_path: Path, sample_source: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    config = store.manifest.config | {"seed": 5}
    build_store(sample_source, tmp_path / "other.zarr", BuildConfig.model_validate(config))
    with pytest.raises(ConfigError, match="was started with data_sha256"):
        fit(open_store(tmp_path / "other.zarr"), read_config(None, FLAGS), tmp_path / "run", resume=True)


def test_full_disk_leaves_the_last_checkpoint(straight: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    shutil.copy(straight / "checkpoints" / "checkpoint.pt", path)
    before, content = path.read_bytes(), load_checkpoint(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be written .*; free space"):
            save_checkpoint(path, content, keep_as=tmp_path / "previous.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_run_with_adapters_and_average_resumes_bit_for_bit(store: Store, straight: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the lora extra is not installed")
    init = str(straight / "checkpoints" / "checkpoint.pt")
    flags = {**FLAGS, "workers": 0, "init": init, "lora.rank": 2, "freeze": "decoder_only", "corrections": 0}
    config = read_config(None, {**flags, "max_steps": 3})

    def stop(record: StepRecord, total: int) -> None:
        if record.step == 2:
            raise KeyboardInterrupt

    fit(store, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(store, config.model_copy(update={"save_every_steps": 1}), tmp_path / "parts", on_step=stop)
    fit(store, config, tmp_path / "parts", resume=True)
    assert_same_runs(tmp_path / "parts", tmp_path / "whole")
    whole, parts = (load_checkpoint(tmp_path / out / "checkpoints" / "checkpoint.pt") for out in ("whole", "parts"))
    for ours, theirs in ((parts, whole), (parts["ema"], whole["ema"])):
        for held in ("adapter", "base_layers"):
            assert ours[held].keys() == theirs[held].keys()
            assert all(torch.equal(weight, ours[held][name]) for name, weight in theirs[held].items())
    assert any("lora_B" in name and weight.abs().sum() > 0 for name, weight in parts["adapter"].items())


def test_resume_in_an_empty_folder_starts_a_run(store: Store, tmp_path: Path) -> None:
    summary = fit(store, read_config(None, {**FLAGS, "max_steps": 1, "workers": 0}), tmp_path, resume=True)
    assert summary["steps"] == 1


def test_missing_checkpoint_is_reported(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"model": "nano", "image_size": 128, "batch_size": 2, "max_steps": 1, "device": "cpu", "report": False}
    fit(store, read_config(None, {**settings, "freeze": "image_encoder", "workers": 0}), tmp_path, resume=True)
    assert "checkpoint.pt does not exist, so the run starts at step 1" in caplog.text


def test_record_of_the_init_file_outlives_its_flag_and_the_file(store: Store, tmp_path: Path) -> None:
    settings = {"model": "nano", "image_size": 128, "batch_size": 2, "max_steps": 1, "device": "cpu", "report": False}
    settings |= {"freeze": "image_encoder", "workers": 0}
    fit(store, read_config(None, settings), tmp_path / "first")
    init = tmp_path / "first" / "checkpoints" / "checkpoint.pt"
    fit(store, read_config(None, {**settings, "init": str(init)}), tmp_path / "second")
    digest = hashlib.sha256(init.read_bytes()).hexdigest()
    init.unlink()
    fit(store, read_config(None, {**settings, "max_steps": 2}), tmp_path / "second", resume=True)
    # Resume as the documentation does, with the run's own settings. Here they name a file that is gone.
    again = read_config(tmp_path / "second" / "config.json", {"max_steps": 3})
    fit(store, again, tmp_path / "second", resume=True)
    content = load_checkpoint(tmp_path / "second" / "checkpoints" / "checkpoint.pt")
    assert content["steps"] == 3
    assert content["config"]["init"] == str(init)
    assert content["init_sha256"] == digest
    described = json.loads((tmp_path / "second" / "config.json").read_text())
    assert (described["init"], described["init_sha256"]) == (str(init), digest)


def test_damaged_checkpoint_is_renamed_and_the_one_before_is_used(tmp_path: Path, caplog) -> None:
    path = tmp_path / "checkpoint.pt"
    assert readable_checkpoint(path) is None
    save_checkpoint(tmp_path / "previous.pt", {"model": {}})
    path.write_bytes(b"half of it")
    assert readable_checkpoint(path) == tmp_path / "previous.pt"
    assert (tmp_path / "checkpoint.damaged").read_bytes() == b"half of it"
    assert "resuming from the checkpoint before it" in caplog.text


def test_longer_run_says_that_its_learning_rate_rises(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = {**FLAGS, "workers": 0, "corrections": 0, "optimizer.warmup_steps": 0}
    fit(store, read_config(None, {**flags, "max_steps": 2}), tmp_path)
    fit(store, read_config(None, {**flags, "max_steps": 4}), tmp_path, resume=True)
    said = "the run now has 4 steps instead of 2, so the learning rate rises from 10% to 33% of its peak"
    assert said in caplog.text
    # The cosine of a third before the end is -1/2, and the floor a tenth.
    assert read_steps(tmp_path)[2].lr == pytest.approx(1e-4 * (0.1 + 0.9 * 0.25))
    caplog.clear()
    fit(store, read_config(None, {**flags, "max_steps": 4}), tmp_path, resume=True)
    assert "learning rate" not in caplog.text
