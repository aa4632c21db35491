"""Checkpoints in the form of an earlier version can be resumed, evaluated and given to `--init`.

The files are made from a description and have random weights. Their form is that of version 3638d48; their numbers are
not.
"""

import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas import Store, open_store
from tests.tools.checkpoint_form import make_checkpoint
from train.cli import main
from train.config import read_config
from train.fit.state import RunIdentity, start_run
from train.fit.trainer import fit

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("plain", "lora", "ema")
SEED = 5
CPU = torch.device("cpu")

TRUNK = "image_encoder.trunk.blocks.3.mlp.layers.0.weight"
"""A weight that none of the runs trains. They train the decoder, and with adapters the layers named attn."""

DECODER = "sam_mask_decoder.conv_s0.weight"

Content = dict[str, Any]

NEWER_SETTINGS: Content = {
    "recipe": None,
    "frames": 1,
    "frame_stride": 1,
    "reverse": 0.0,
    "corrected_frames": 1,
    "mask_prompt_share": 1.0,
    "box_jitter": 0.0,
    "patients": None,
    "keep_previous": True,
}
"""The settings that version 3638d48 did not have, with the values that give its results. They must be the defaults."""


@pytest.fixture(scope="module")
def old_store() -> Store:
    return open_store(GOLDEN / "store_3638d48.zarr")


@pytest.fixture(scope="module")
def forms() -> Content:
    return json.loads((GOLDEN / "checkpoints_3638d48.json").read_text())


@pytest.fixture(scope="module")
def old_files(forms: Content, module_path: Path) -> dict[str, Path]:
    """One checkpoint file of each form, by name."""
    files: dict[str, Path] = {}
    for name in NAMES:
        files[name] = module_path / f"{name}.pt"
        content = make_checkpoint(forms, name, SEED)
        if name == "lora":
            _merge(content)
        torch.save(content, files[name])
    return files


def _merge(content: Content) -> None:
    """Merge the adapters into the weights under `model`, as in all checkpoints that a run writes."""
    settings, adapter = content["config"]["lora"], content["adapter"]
    for key, weight in content["base_layers"].items():
        layer, _, kind = key.partition(".base_layer.")
        content["model"][f"{layer}.{kind}"] = weight.clone()
        if kind == "weight":
            down, up = (adapter[f"{layer.removeprefix('image_encoder.')}.lora_{part}.weight"] for part in "AB")
            content["model"][f"{layer}.weight"] += up @ down * settings["alpha"] / settings["rank"]


def _moved(now: Content, then: Content) -> list[str]:
    """Return the names of weights that moved further than these runs move them in two steps."""
    assert now.keys() == then.keys()
    return [key for key, weight in then.items() if not torch.allclose(now[key], weight, rtol=0, atol=1e-4)]


def _read(path: Path) -> Content:
    return torch.load(path, weights_only=True, mmap=True)


def _leaves(values: Content, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the settings with their dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _resume(store: Store, checkpoint: Path, settings: Content, out: Path, steps: int) -> tuple[list[int], Content]:
    """Resume from a checkpoint with the settings of its config.json; return the steps made and the new checkpoint."""
    (out / "checkpoints").mkdir(parents=True)
    # A hard link is safe, because the run writes a new file and renames it.
    os.link(checkpoint, out / "checkpoints" / "checkpoint.pt")
    (out / "config.json").write_text(json.dumps(settings))
    seen: list[int] = []
    config = read_config(out / "config.json", {"max_steps": steps})
    fit(store, config, out, resume=True, on_step=lambda record, total: seen.append(record.step))
    return seen, _read(out / "checkpoints" / "checkpoint.pt")


@pytest.mark.parametrize("name", NAMES)
def test_run_is_resumed(
    old_store: Store, forms: Content, old_files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    if name == "lora":
        pytest.importorskip("peft", reason="the lora extra is not installed")
    then, settings = _read(old_files[name]), forms["checkpoints"][name]["config"]
    seen, now = _resume(old_store, old_files[name], settings, tmp_path, steps=4)
    assert seen == [3, 4]
    assert now["steps"] == now["scheduler"]["step"] == now["sampler"]["batch"] == 4
    assert now["time_elapsed"] > then["time_elapsed"]
    assert now["best_meter_values"]["dice"] >= then["best_meter_values"]["dice"]
    assert dict(_leaves(now["config"])) == dict(_leaves(settings)) | NEWER_SETTINGS | {"max_steps": 4}
    # All weights of the file and the state of the optimizer were restored.
    for part in {"model", "adapter", "base_layers"} & then.keys():
        assert _moved(now[part], then[part]) == []
    assert torch.equal(now["model"][TRUNK], then["model"][TRUNK])
    assert not torch.equal(now["model"][DECODER], then["model"][DECODER])
    states = now["optimizer"]["state"]
    assert states.keys() == then["optimizer"]["state"].keys()
    assert {float(state["step"]) for state in states.values()} == {4.0}
    assert ("ema" in now) == (name == "ema")
    if name == "ema":
        # This weight does not change, and the average moves towards it by a tenth in each of the two steps.
        expected = then["ema"]["model"][TRUNK] * 0.9**2 + then["model"][TRUNK] * (1 - 0.9**2)
        assert torch.allclose(now["ema"]["model"][TRUNK], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_default_of_a_newer_setting_gives_the_old_results(forms: Content, name: str) -> None:
    in_file = dict(_leaves(forms["checkpoints"][name]["config"]))
    now = dict(_leaves(read_config(None, {}).model_dump(mode="json")))
    assert {key: value for key, value in now.items() if key not in in_file} == NEWER_SETTINGS


def test_setting_that_the_file_lacks_has_its_default(old_store: Store, forms: Content, tmp_path: Path) -> None:
    content = make_checkpoint(forms, "plain", SEED)
    # This setting stands for one that a later version adds.
    del content["config"]["checkpoint_activations"]
    torch.save(content, tmp_path / "plain.pt")
    # The run has no steps left, so the test looks at its config.json.
    seen, _ = _resume(old_store, tmp_path / "plain.pt", content["config"], tmp_path / "run", steps=2)
    assert seen == []
    described = dict(_leaves(json.loads((tmp_path / "run" / "config.json").read_text())))
    assert described["checkpoint_activations"] is False
    assert described.items() >= (dict(_leaves(content["config"])) | NEWER_SETTINGS).items()


def test_old_checkpoints_are_evaluated(
    old_store: Store, old_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [flag for name in NAMES for flag in ("--checkpoint", str(old_files[name]))]
    flags += ["--split", "val", "--prompt", "box", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bcss-train", "evaluate", old_store.path, *flags])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    result = json.loads((tmp_path / "metrics.json").read_text())
    # The files also record the weights that they started from, so these are scored too.
    assert result["models"].keys() >= {*NAMES, "baseline:untrained"}
    for name in NAMES:
        assert 0 <= result["models"][name]["box"]["overall"]["dice"] <= 1
        assert math.isfinite(result["models"][name]["box"]["overall"]["iou_estimate"]["bias"])


@pytest.mark.parametrize("name", NAMES)
def test_old_weights_are_the_start(old_files: dict[str, Path], name: str) -> None:
    run = start_run(read_config(None, {"init": str(old_files[name]), "image_size": 128}), RunIdentity("", 1, 1), CPU)
    # With adapters, the weights under `model` are merged. With an average, predictions are made with it.
    content = _read(old_files[name])
    then, now = (content.get("ema") or content)["model"], run.model.sam.state_dict()
    assert now.keys() == then.keys()
    assert all(torch.equal(now[key], weight) for key, weight in then.items())


def test_run_starts_from_an_old_checkpoint(old_store: Store, old_files: dict[str, Path], tmp_path: Path) -> None:
    # Use the checkpoint with adapters, whose weights under `model` are merged.
    overrides = {"init": str(old_files["lora"]), "image_size": 128, "batch_size": 1, "max_steps": 1, "workers": 0}
    overrides |= {"freeze": "decoder_only", "device": "cpu", "report": False}
    fit(old_store, read_config(None, overrides), tmp_path)
    then, now = _read(old_files["lora"]), _read(tmp_path / "checkpoints" / "checkpoint.pt")
    assert now["config"]["init"] == str(old_files["lora"])
    assert _moved(now["model"], then["model"]) == []
    assert not torch.equal(now["model"][DECODER], then["model"][DECODER])
