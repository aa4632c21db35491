"""The training step on a GPU. Tests marked `cuda` need a GPU; the others check on a CPU what can be checked there.

Tensors of torch's `FakeTensorMode` have a device, a dtype and a shape, but no values. The real step runs with them as
on a GPU. It fails if it mixes devices, or if it reads a value, because the host would then wait for the device.
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

from schemas.errors import TrainingError
from schemas.store.store import Store
from train.config import FitConfig
from train.data.collate import Batch, collate
from train.data.dataset import SampleRequest, TileDataset
from train.data.loader import sample_options
from train.fit.forward import TrainingForward
from train.fit.state import Run, RunIdentity, start_run
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
    {"prompt": "mixed", "corrections": 2, "mask_prompt_share": 0.5, "box_jitter": 0.1},
    {"prompt": "random", "corrections": 1, "freeze": ("image_encoder",)},
    {"prompt": "multi_point", "augment": COLORS},
    {"prompt": "centroid", "loss": {"class_weights": {1: 2.0, 2: 3.0}, "predict_presence": True}},
]
"""Settings that take different paths through the step."""

RACING = "sum of several values by index_put"
"""Threads of a CPU add the values in any order, so two runs would differ."""

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal")
"""Operations that make the host wait for a value or for a size."""

FAKE_GPU = pytest.mark.skipif(
    torch.__version__.startswith("2.8."),
    reason="torch 2.8 asks the driver for the device of a fake tensor that is indexed",
)

TRACING = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
"""Torch gives this warning while it traces what it compiles."""


def _config(form: Mapping[str, object], **changes: object) -> FitConfig:
    return FitConfig.model_validate({"model": "nano", "image_size": 128, "batch_size": 2, **form, **changes})


def _start(config: FitConfig, device: str = "cpu") -> Run:
    return start_run(config, RunIdentity("", config.batch_size, 1), torch.device(device))


def _batch(store: Store, config: FitConfig) -> Batch:
    dataset = TileDataset(store.path, sample_options(config))
    return collate([dataset[SampleRequest(tile, 0)] for tile in range(config.batch_size)])


@contextmanager
def _fake_gpu() -> Generator[FakeTensorMode]:
    # `torch.autocast` itself would warn that this machine has no GPU.
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def _to_fake(module: nn.Module, mode: FakeTensorMode, device: torch.device) -> None:
    """Replace the parameters and buffers of a model by fake ones on the device."""
    for part in module.modules():
        # torch has no public way to replace what a module holds by a tensor that is no parameter.
        for known in (part._parameters, part._buffers):  # pyright: ignore[reportPrivateUsage]
            for name, tensor in known.items():
                if tensor is not None:
                    fake = mode.from_tensor(tensor).detach().to(device)
                    known[name] = fake.requires_grad_(tensor.requires_grad)  # pyright: ignore[reportArgumentType]


@FAKE_GPU
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_forward_pass_and_loss_do_not_wait_for_the_gpu(store: Store, form: dict[str, object], monkeypatch) -> None:
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
def test_forward_pass_from_stored_features_does_not_wait_either(store: Store, monkeypatch) -> None:
    config, device = _config({"freeze": ("image_encoder", "sam_prompt_encoder")}), torch.device("cuda", 0)
    batch, run = _batch(store, config), _start(config)
    kept = tuple(torch.zeros(1, 2, *level.shape, dtype=torch.bfloat16) for level in run.model.kept_levels)
    monkeypatch.setattr("train.fit.step.autocast", lambda _device: nullcontext())
    with _fake_gpu() as mode:
        _to_fake(run.model, mode, device)
        step = TrainStep(run.model, run.optimizer, config, World(), device)
        terms = step.loss(replace(batch, features=kept).with_each(mode.from_tensor).to(device), 4.0)
    assert (terms.total.device, terms.total.dtype) == (device, torch.float32)


def test_fake_gpu_notices_that_a_value_is_read() -> None:
    with _fake_gpu(), pytest.raises(DataDependentOutputException):
        torch.ones(3, device="cuda").sum().item()


def _is_twice(indices: Sequence[Tensor | None]) -> bool:
    """Return whether the indices name some place more than once."""
    places = torch.stack(torch.broadcast_tensors(*(index for index in indices if index is not None)))
    return places.flatten(1).unique(dim=1).shape[1] < places[0].numel()


class _Operations(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.__name__.partition(".")[0])
        if "index" in func.__name__:
            # To index by a mask, the host must count the selected places.
            masks = [index for index in args[1] or () if index is not None and index.dtype == torch.bool]
            self.names |= {"nonzero"} if masks else set()
        if "index_put" in func.__name__ and (args[3:] or (kwargs or {}).get("accumulate")) and _is_twice(args[1]):
            self.names.add(RACING)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_backward_pass_and_clipping_read_no_value(store: Store, form: dict[str, object]) -> None:
    config = _config(form)
    batch, run = _batch(store, config), _start(config)
    step = TrainStep(run.model, run.optimizer, config, World(), torch.device("cpu"))
    step([batch])
    with _Operations() as seen:
        step.accumulate(batch, 4.0)
        nn.utils.clip_grad_norm_(step.parameters, config.optimizer.clip_norm)
    assert "convolution_backward" in seen.names
    assert seen.names.isdisjoint((*WAITING, RACING))


def test_gradient_is_clipped_and_its_norm_before_clipping_is_returned(store: Store) -> None:
    config = _config({"prompt": "box", "optimizer": {"clip_norm": 0.01}})
    batch, run = _batch(store, config), _start(config)
    step = TrainStep(run.model, run.optimizer, config, World(), torch.device("cpu"))
    values, counts = step([replace(batch, dropped=3, skipped=5)])
    kept = torch.stack([p.grad.norm() for p in step.parameters if p.grad is not None]).norm()
    assert values["grad_norm"] > 0.1
    assert kept == pytest.approx(0.01, rel=1e-3)
    assert counts == {"objects": batch.num_objects, "dropped": 3, "skipped": 5}


def test_loss_of_a_batch_is_the_sum_of_its_images_losses(store: Store) -> None:
    config = _config({"prompt": "box"})
    dataset = TileDataset(store.path, sample_options(config))
    samples = [dataset[SampleRequest(tile, 0)] for tile in range(3)]
    # Each image gets different ignored pixels.
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


def test_weight_of_a_class_changes_only_its_objects(store: Store) -> None:
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
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_step_waits_for_the_gpu_only_at_its_end(store: Store, form: dict[str, object], cuda: torch.device) -> None:
    config = _config(form)
    batch, run = _batch(store, config).pin_memory(), _start(config, "cuda")
    step = TrainStep(run.model, run.optimizer, config, World(), cuda)
    # Only the first step makes plans and constants.
    step([batch])
    try:
        torch.cuda.set_sync_debug_mode("error")
        step.accumulate(batch.to(cuda), 4.0)
        nn.utils.clip_grad_norm_(step.parameters, config.optimizer.clip_norm)
        run.optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@TRACING
@pytest.mark.parametrize("compiled", [False, True])
def test_resumed_run_on_a_gpu_equals_an_uninterrupted_one(
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
    # Sums on a GPU differ in their last bits from run to run.
    for ours, theirs in zip(one, two, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)


@pytest.mark.cuda
@TRACING
@pytest.mark.parametrize("freeze", [(), ("image_encoder",)], ids=str)
def test_compiled_run_on_a_gpu_gives_the_losses_of_the_plain_run(
    store: Store, tmp_path: Path, freeze: tuple[str, ...], cuda: torch.device
) -> None:
    # A frozen encoder is also recorded as a CUDA graph, whose output the next step overwrites.
    rates = {"lr": 1e-4, "vision_lr": 1e-4, "accumulate": 2}
    plain = _config({"prompt": "box", "freeze": freeze, "optimizer": rates, "device": cuda.type}, max_steps=6)
    fit(store, plain, tmp_path / "plain")
    fit(store, plain.model_copy(update={"compile": True}), tmp_path / "compiled")
    losses = [[step.loss for step in read_steps(tmp_path / run)] for run in ("plain", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.cuda
def test_full_memory_of_a_gpu_is_an_error_that_names_the_settings_to_lower(
    store: Store, tmp_path: Path, cuda: torch.device
) -> None:
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info(cuda)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(cuda) + 2**28) / total, cuda)
    try:
        with pytest.raises(TrainingError, match="does not fit the device's memory; lower --batch-size"):
            fit(store, _config({"prompt": "box"}, image_size=1024, batch_size=8, device="cuda"), tmp_path)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
