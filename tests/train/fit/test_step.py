"""The step on a GPU: what can be seen of it without one, and, marked `cuda`, what takes one.

Tensors of torch's `FakeTensorMode` have a device, a type and a shape, and no values. They go through the true step as
on a GPU: what mixes devices fails, and so does what reads a value, for which the host would wait for the device.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from schemas.store.store import Store
from train.config import FitConfig
from train.data.collate import Batch, collate
from train.data.dataset import SampleRequest, TileDataset
from train.data.loader import sample_options
from train.fit.forward import TrainingForward
from train.fit.state import Origin, Run, start_run
from train.fit.step import TrainStep
from train.fit.trainer import fit
from train.loss.batch_loss import batch_loss
from train.loss.mask_loss import LossTerms
from train.runtime.device import autocast
from train.runtime.distributed import World
from train.runtime.run_log import read_steps

COLORS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05, "grey": 0.1, "stain": 0.2}
FORMS = [
    {"prompt": "box"},
    {"prompt": "mixed", "corrections": 2},
    {"prompt": "random", "corrections": 1, "freeze": ("image_encoder",)},
    {"prompt": "multi_point", "augment": COLORS},
    {"prompt": "centroid", "loss": {"class_weights": {1: 2.0, 2: 3.0}, "predict_presence": True}},
]
"""Settings that each take another way through the step."""

RACING = "sum of several values by index_put"
"""Threads of a CPU make it in any order, and a run would not be the same twice."""

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal")
"""Operations whose result, or its size, the host has to wait for."""

FAKE_GPU = pytest.mark.skipif(
    torch.__version__.startswith("2.8."),
    reason="torch 2.8 asks the driver for the device of a fake tensor that is indexed",
)


def _config(form: Mapping[str, object], **changes: object) -> FitConfig:
    return FitConfig.model_validate({"model": "nano", "image_size": 128, "batch_size": 2, **form, **changes})


def _start(config: FitConfig, device: str = "cpu") -> Run:
    return start_run(config, Origin("", config.batch_size, 1), torch.device(device))


def _batch(store: Store, config: FitConfig) -> Batch:
    dataset = TileDataset(store.path, sample_options(config))
    return collate([dataset[SampleRequest(tile, 0)] for tile in range(config.batch_size)])


@contextmanager
def _fake_gpu() -> Generator[FakeTensorMode]:
    # Under `torch.autocast` itself this would warn that there is no such device.
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def _to_fake(module: nn.Module, mode: FakeTensorMode, device: torch.device) -> None:
    """Exchange the parameters and buffers of a model."""
    for part in module.modules():
        for known in (part._parameters, part._buffers):
            for name, tensor in known.items():
                if tensor is not None:
                    fake = mode.from_tensor(tensor).detach().to(device)
                    known[name] = fake.requires_grad_(tensor.requires_grad)  # pyright: ignore[reportArgumentType]


@FAKE_GPU
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_nothing_of_a_step_waits_for_the_gpu(store: Store, form: dict[str, object], monkeypatch) -> None:
    config, device = _config(form), torch.device("cuda", 0)
    batch, run = _batch(store, config), _start(config)
    monkeypatch.setattr("train.fit.step.autocast", lambda _device: nullcontext())
    with _fake_gpu() as mode:
        _to_fake(run.model, mode, device)
        step = TrainStep(run.model, run.optimizer, config, World(), device)
        terms = step.loss(batch.with_each(mode.from_tensor).to(device), 4.0)
    for field in fields(LossTerms):
        term: Tensor = getattr(terms, field.name)
        assert (term.device, term.dtype, term.shape) == (device, torch.float32, ())


@FAKE_GPU
def test_nothing_of_a_step_from_kept_features_waits_either(store: Store, monkeypatch) -> None:
    config, device = _config({"freeze": ("image_encoder", "sam_prompt_encoder")}), torch.device("cuda", 0)
    batch, run = _batch(store, config), _start(config)
    kept = tuple(torch.zeros(1, 2, *level.shape, dtype=torch.bfloat16) for level in run.model.kept_levels)
    monkeypatch.setattr("train.fit.step.autocast", lambda _device: nullcontext())
    with _fake_gpu() as mode:
        _to_fake(run.model, mode, device)
        step = TrainStep(run.model, run.optimizer, config, World(), device)
        terms = step.loss(replace(batch, features=kept).with_each(mode.from_tensor).to(device), 4.0)
    assert (terms.total.device, terms.total.dtype) == (device, torch.float32)


def test_reading_a_value_would_be_seen() -> None:
    with _fake_gpu(), pytest.raises(DataDependentOutputException):
        torch.ones(3, device="cuda").sum().item()


def _is_twice(indices: Sequence[Tensor | None]) -> bool:
    """Whether some place is meant more than once."""
    places = torch.stack(torch.broadcast_tensors(*(index for index in indices if index is not None)))
    return places.flatten(1).unique(dim=1).shape[1] < places[0].numel()


class _Operations(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.__name__.partition(".")[0])
        if "index" in func.__name__:
            # By a mask is by places that the host has to count.
            masks = [index for index in args[1] or () if index is not None and index.dtype == torch.bool]
            self.names |= {"nonzero"} if masks else set()
        if "index_put" in func.__name__ and (args[3:] or (kwargs or {}).get("accumulate")) and _is_twice(args[1]):
            self.names.add(RACING)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_backward_pass_and_clipping_read_no_value_either(store: Store, form: dict[str, object]) -> None:
    config = _config(form)
    batch, run = _batch(store, config), _start(config)
    step = TrainStep(run.model, run.optimizer, config, World(), torch.device("cpu"))
    step([batch])
    with _Operations() as seen:
        step.accumulate(batch, 4.0)
        nn.utils.clip_grad_norm_(step.parameters, config.optimizer.clip_norm)
    assert "convolution_backward" in seen.names
    assert seen.names.isdisjoint((*WAITING, RACING))


def test_gradient_is_clipped_and_its_norm_told_as_it_was(store: Store) -> None:
    config = _config({"prompt": "box", "optimizer": {"clip_norm": 0.01}})
    batch, run = _batch(store, config), _start(config)
    step = TrainStep(run.model, run.optimizer, config, World(), torch.device("cpu"))
    values, counts = step([replace(batch, dropped=3, skipped=5)])
    kept = torch.stack([p.grad.norm() for p in step.parameters if p.grad is not None]).norm()
    assert values["grad_norm"] > 0.1
    assert kept == pytest.approx(0.01, rel=1e-3)
    assert counts == {"objects": batch.num_objects, "dropped": 3, "skipped": 5}


def test_batch_loses_what_its_images_lose_alone(store: Store) -> None:
    config = _config({"prompt": "box"})
    dataset = TileDataset(store.path, sample_options(config))
    samples = [dataset[SampleRequest(tile, 0)] for tile in range(3)]
    # Each image has don't-care pixels of its own.
    for number, sample in enumerate(samples):
        sample.ignore[32 * number : 32 * number + 64] = True
    model = _start(config).model
    whole, *parts = (
        batch_loss(TrainingForward(model)(batch), batch, config.loss, 4.0)
        for batch in (collate(samples), *(collate([sample]) for sample in samples))
    )
    for field in fields(LossTerms):
        alone = sum(getattr(part, field.name).item() for part in parts)
        assert getattr(whole, field.name).item() == pytest.approx(alone, rel=1e-4), field.name


def test_weight_of_a_class_is_for_its_objects_alone(store: Store) -> None:
    dataset = TileDataset(store.path, sample_options(_config({"prompt": "box", "max_objects": 1})))
    batch = collate([dataset[SampleRequest(0, 0)]])
    own, other = int(batch.class_ids[0, 0]), int(batch.class_ids[0, 0]) + 1
    losses = []
    for weights in ({}, {own: 3.0}, {other: 3.0}):
        config = _config({"prompt": "box", "loss": {"class_weights": weights}})
        losses.append(batch_loss(TrainingForward(_start(config).model)(batch), batch, config.loss, 1.0).total.item())
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)
    assert losses[2] == losses[0]


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gpu_gives_the_loss_and_gradient_of_the_cpu(store: Store, form: dict[str, object], cuda: torch.device) -> None:
    config = _config(form)
    batch, gradients, losses = _batch(store, config), [], []
    for device in (torch.device("cpu"), cuda):
        run = _start(config, device.type)
        with autocast(device):
            predictions = TrainingForward(run.model, config.corrections)(batch.to(device))
        loss = batch_loss(predictions, batch.to(device), config.loss, 4.0).total
        loss.backward()
        losses.append(loss.item())
        parameters = [p for p in run.model.parameters() if p.requires_grad]
        gradients.append(torch.cat([p.grad.flatten().float().cpu() for p in parameters if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gpu_is_waited_for_at_the_end_of_a_step_alone(
    store: Store, form: dict[str, object], cuda: torch.device
) -> None:
    config = _config(form)
    batch, run = _batch(store, config).pin_memory(), _start(config, "cuda")
    step = TrainStep(run.model, run.optimizer, config, World(), cuda)
    # The first step makes plans and constants.
    step([batch])
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.accumulate(batch.to(cuda), 4.0)
        nn.utils.clip_grad_norm_(step.parameters, config.optimizer.clip_norm)
        run.optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_resumed_run_on_a_gpu_goes_on_as_if_it_had_not_stopped(
    store: Store, tmp_path: Path, compiled: bool, cuda: torch.device
) -> None:
    rates = {"lr": 1e-4, "vision_lr": 1e-4}
    form = {"prompt": "mixed", "corrections": 1, "optimizer": rates, "device": cuda.type, "compile": compiled}
    whole = _config(form, max_steps=6, workers=2, report=False)
    fit(store, whole, tmp_path / "whole")
    fit(store, whole.model_copy(update={"max_steps": 3}), tmp_path / "halves")
    fit(store, whole, tmp_path / "halves", resume=True)
    one, two = read_steps(tmp_path / "whole"), read_steps(tmp_path / "halves")
    assert [step.tiles for step in one] == [step.tiles for step in two]
    # Sums of a GPU differ in their last bits from run to run.
    for ours, theirs in zip(one, two, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=0.02)
