"""Training on windows of frames: what gets a gradient, which passes there are, and runs that end, resume and learn."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.config import FitConfig
from train.data.collate import Batch, collate
from train.data.dataset import SampleRequest
from train.data.loader import training_dataset
from train.data.windows import find_windows
from train.fit.prepare import prepare_run
from train.fit.state import Run, RunIdentity, start_run
from train.fit.step import TrainStep
from train.fit.trainer import fit
from train.loss.batch_loss import batch_loss
from train.model.acceleration import recompute_activations
from train.runtime.distributed import World
from train.runtime.machine import Machine
from train.runtime.run_log import read_steps
from train.runtime.stop import StopRequest
from train.score.answers import tiles_with_objects
from train.settings import LossConfig


def _config(**changes: Any) -> FitConfig:
    return FitConfig.model_validate(
        {"model": "nano", "image_size": 128, "frames": 3, "batch_size": 2, "report": False, "workers": 0, **changes}
    )


def _start(config: FitConfig) -> Run:
    return start_run(config, RunIdentity("", config.batch_size, 1), torch.device("cpu"))


def _batch(store: Store, config: FitConfig, *starts: int) -> Batch:
    windows = find_windows(store, tiles_with_objects(store, "all"), config.frames, config.frame_stride)
    dataset = training_dataset(store, config, windows)
    return collate([dataset[SampleRequest(start, 0)] for start in starts])


def _step(run: Run) -> TrainStep:
    return TrainStep(run.model, run.optimizer, run.config, World(), torch.device("cpu"))


@pytest.mark.parametrize("prompt", ["box", "mask"])
def test_every_trained_parameter_gets_a_gradient(sequences: Store, prompt: str) -> None:
    config = _config(prompt=prompt)
    run = _start(config)
    batch = _batch(sequences, config, 6, 12)
    loss = batch_loss(_step(run).forward(batch), batch, config.loss, batch.num_objects)
    loss.total.backward()
    trained = {name for name, p in run.model.sam.named_parameters() if p.requires_grad}
    without = {name for name in trained if run.model.sam.get_parameter(name).grad is None}
    # The embedding of an empty memory takes part only if a decoder pass precedes all memory.
    assert without == ({"no_mem_embed"} if prompt == "mask" else set())
    assert {"memory_attention.norm.weight", "maskmem_tpos_enc", "no_obj_ptr", "obj_ptr_tpos_proj.bias"} < trained
    assert ("mask_downsample.weight" in trained) == (prompt == "mask")
    assert "no_mem_pos_enc" not in trained


def test_single_images_do_not_train_the_memory() -> None:
    run = _start(_config(frames=1))
    trained = [name for name, p in run.model.sam.named_parameters() if p.requires_grad]
    assert not [name for name in trained if name.startswith(("memory", "obj_ptr", "maskmem", "no_obj", "mask_down"))]


def test_memory_learns_at_the_rate_of_the_decoder_and_can_be_frozen() -> None:
    run = _start(_config(optimizer={"lr": 0.5, "vision_lr": 0.25, "layer_decay": 1.0}))
    rates = {id(p): group["lr"] for group in run.optimizer.param_groups for p in group["params"]}
    assert rates[id(run.model.sam.get_parameter("memory_encoder.out_proj.weight"))] == 0.5
    assert rates[id(run.model.sam.get_parameter("image_encoder.neck.convs.0.conv.weight"))] == 0.25
    frozen = _start(_config(freeze="memory"))
    assert not [
        n for n, p in frozen.model.sam.named_parameters() if p.requires_grad and "mem" in n.replace("no_mem", "")
    ]


def test_corrected_frames_have_a_pass_for_each_click(sequences: Store) -> None:
    config = _config(prompt="box", corrections=2, corrected_frames=2)
    batch = _batch(sequences, config, 6)
    (group,) = batch.groups
    predictions = _step(_start(config)).forward(batch)
    passes = [len(prediction.passes) for prediction in predictions]
    assert [prediction.frame for prediction in predictions] == [0, 1, 2]
    assert passes == [3 if frame in group.corrected else 1 for frame in range(3)]
    later = predictions[group.corrected[1]]
    # Without a prompt and with one click there are three masks, with two clicks there is one.
    assert [one.logits.shape[1] for one in later.passes] == [3, 3, 1]
    assert [one.logits.shape[1] for one in predictions[0].passes] == [1, 1, 1]


def test_unlabeled_frames_add_nothing_to_the_loss(sequences: Store) -> None:
    config = _config(prompt="box", augment={"orientation": False})
    # Frame 4 of the first sequence has no mask.
    batch = _batch(sequences, config, 2)
    predictions = _step(_start(config)).forward(batch)
    whole = batch_loss(predictions, batch, LossConfig(), 1.0).total
    labeled = [prediction for prediction in predictions if prediction.frame != 2]
    assert whole.item() == batch_loss(labeled, batch, LossConfig(), 1.0).total.item()
    hidden = [prediction for prediction in predictions if prediction.frame == 1]
    assert batch_loss(hidden, batch, LossConfig(), 1.0).presence.item() > 0


def test_recomputed_activations_give_the_same_gradients(sequences: Store) -> None:
    config = _config(prompt="box")
    batch, gradients = _batch(sequences, config, 6), []
    for recompute in (False, True):
        run = _start(config)
        if recompute:
            recompute_activations(run.model.sam)
        batch_loss(_step(run).forward(batch), batch, config.loss, 2.0).total.backward()
        gradients.append({name: p.grad for name, p in run.model.sam.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradient) for name, gradient in gradients[1].items())


def test_colors_of_all_frames_change(sequences: Store) -> None:
    config = _config(augment={"brightness": 0.5})
    step, batch = _step(_start(config)), _batch(sequences, config, 6, 12)
    changed = step.augmented_images(batch, config.augment).unflatten(0, (3, 2))
    factors = (changed.mean((2, 3, 4)) / batch.images.float().mean((2, 3, 4))).flatten()
    assert len({round(factor, 4) for factor in factors.tolist()}) == 6
    plain = step.augmented_images(batch, _config().augment)
    assert torch.equal(plain, batch.images.flatten(0, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 1, "prompt": "mask"}, "--prompt mask: would give the model the mask that it should predict"),
        ({"frames": 1, "reverse": 0.5}, "--reverse: needs windows of several frames"),
        ({"frames": 1, "frame_stride": 2}, "--frame-stride: needs windows of several frames"),
        (
            {"frames": 2, "corrected_frames": 3, "corrections": 1},
            "--corrected-frames 3: is more than the 2 frames of a window",
        ),
        ({"compile": True}, "--compile: cannot be used with --frames"),
        ({"cache_features": True}, "--cache-features: cannot be used with --frames"),
        ({"frames": 2, "balance": "classes"}, "--balance classes: cannot be used with --frames"),
        (
            {"frames": 2, "mask_prompt_share": 0.5, "corrections": 1},
            "--mask-prompt-share: cannot be used with --frames",
        ),
        ({"frames": 2, "corrected_frames": 2}, "--corrected-frames: needs clicks that correct"),
        ({"prompt": "mask", "corrections": 1}, "--corrections: cannot correct the masks of --prompt mask"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _config(**changes)


@pytest.mark.parametrize(("freeze", "trains"), [((), True), (("memory",), False)])
def test_the_start_line_says_whether_the_memory_trains(
    sequences: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, freeze: tuple[str, ...], trains: bool
) -> None:
    caplog.set_level(logging.INFO)
    machine = Machine(World(), torch.device("cpu"), StopRequest())
    prepare_run(sequences, _config(freeze=freeze), machine, None)
    (line,) = [text for text in caplog.messages if "windows of 3 frames and trains" in text]
    assert "sam_mask_decoder" in line
    assert ("memory" in line) == trains


def test_a_run_without_sequences_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--frames 3.*has no sequences"):
        fit(store, _config(), tmp_path / "run")


def test_a_resumed_run_equals_an_uninterrupted_one(sequences: Store, tmp_path: Path) -> None:
    drawn = {"prompt": "random", "reverse": 0.5, "corrections": 1, "corrected_frames": 2, "init": "nano"}
    config = _config(**drawn, batch_size=1, max_steps=4, optimizer={"final_lr_fraction": 1.0})
    whole = fit(sequences, config, tmp_path / "whole")
    fit(sequences, config.model_copy(update={"max_steps": 2}), tmp_path / "parts")
    parts = fit(sequences, config, tmp_path / "parts", resume=True)
    assert (whole["steps"], parts["loss_last"]) == (4, whole["loss_last"])
    steps = [read_steps(tmp_path / name) for name in ("whole", "parts")]
    assert [step.loss for step in steps[0]][2:] == [step.loss for step in steps[1]][2:]
    assert [step.tiles for step in steps[0]] == [step.tiles for step in steps[1]]
    assert [step.images for step in steps[0]] == [3] * 4


def test_a_window_that_is_alone_or_in_a_batch_gives_the_same_loss(sequences: Store) -> None:
    """Objects do not see each other, so the loss of a batch is the sum over its windows."""
    config = _config(prompt="box")
    step = _step(_start(config))
    losses = [step.loss(_batch(sequences, config, *starts), 1.0).total.item() for starts in ((6,), (12,), (6, 12))]
    assert losses[2] == pytest.approx(losses[0] + losses[1], rel=1e-5)


def test_a_window_with_a_mask_prompt_gets_no_clicks(sequences: Store) -> None:
    config = _config(prompt="random", corrections=2, corrected_frames=3)
    step = _step(_start(config))
    found: dict[bool, set[int]] = {True: set(), False: set()}
    for start in range(3):
        batch = _batch(sequences, config, start)
        (group,) = batch.groups
        passes = [len(prediction.passes) for prediction in step.forward(batch)]
        found[group.count == 0] |= {sum(passes)}
    # Three frames are corrected, with two clicks each, unless the mask was the prompt.
    assert found == {True: {3}, False: {9}}


def test_warm_up_that_is_longer_than_the_run_is_said(sequences: Store, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(World(), torch.device("cpu"), StopRequest())
    for steps, count in ((4, 0), (3, 1)):
        caplog.clear()
        prepare_run(sequences, _config(max_steps=steps, optimizer={"warmup_steps": 3}), machine, None)
        said = [text for text in caplog.messages if text.startswith("--warmup-steps 3: the run has 3 steps")]
        assert len(said) == count


def test_object_under_ignored_pixels_is_not_taught_to_be_absent(sequences: Store) -> None:
    config = _config()
    run = _start(config)
    batch = _batch(sequences, config, 12)
    shown = batch.masks[0].clone()
    assert batch.num_objects > 1
    assert not batch.ignore.any()
    # In frame 1 ignored pixels cover the first object. In frame 2 it is really gone: nothing is ignored there.
    batch.masks[1:, 0] = False
    batch.ignore[1, batch.object_to_image[0, 0, 1]] = shown[0]
    predictions = _step(run).forward(batch)
    logits = {found.frame: found.passes[0].presence_logits for found in predictions if 0 in found.objects}
    places = {found.frame: found.objects.tolist().index(0) for found in predictions if 0 in found.objects}
    for each in logits.values():
        each.retain_grad()
    batch_loss(predictions, batch, config.loss, batch.num_objects).presence.backward()
    gradients = {frame: each.grad[places[frame], 0].item() for frame, each in logits.items() if each.grad is not None}
    assert gradients[1] == 0
    assert gradients[0] < 0 < gradients[2]
