"""Compare our training step with the published one: images per second and peak memory, on a batch on the GPU.

    python -m benchmarks.step [--models tiny base_plus large] [--ways eager compiled] [--steps 20]
        [--encoder frozen trained] [--corrections 0 7] [--profile]

Both sides have images of 1024 px with three objects each, box prompts, and the same random weights and batch. Only one
of them is on the GPU at a time. The goals apply to the compiled step. Without a GPU the script says that it was
skipped; `--device cpu` measures the processor, where only `tiny` at 512 px is likely to be wanted and the goals are
lower. "Pays" is the number of steps after which the compiled step has made up for its compilation. The last line is
JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims import Claim, hardware, print_claims
from benchmarks.published_step import PublishedStep
from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.store.store import Store, open_store
from train.backbone.catalog import ModelSize
from train.config import FitConfig
from train.data.collate import Batch, collate
from train.data.dataset import SampleRequest, TileDataset
from train.data.loader import sample_options
from train.fit.state import Run, RunIdentity, start_run
from train.fit.step import TrainStep
from train.model.promptable import PromptableSam
from train.runtime.device import autocast
from train.runtime.distributed import World

BATCHES: dict[ModelSize, int] = {"tiny": 8, "small": 8, "base_plus": 8, "large": 6}
FROZEN_GOALS: dict[ModelSize, float] = {"tiny": 2.5, "small": 2.5, "base_plus": 2.5, "large": 2.0}
FULL_GOAL, MEMORY_GOAL, LOSS_GOAL = 1.6, 0.5, 0.02
CPU_FULL_GOAL, CPU_FROZEN_GOAL = 1.5, 1.35
"""Goals of the step on a CPU, which hold without compilation."""

WARM_UP_STEPS = 4
"""Steps before the measured ones."""


@dataclass(frozen=True)
class Measured:
    """The cost of steps.

    Attributes:
        step_s: Median seconds per step.
        peak_gib: Peak memory of tensors in GiB.
        loss: Loss of the first step.
        first_s: Seconds of the first `WARM_UP_STEPS` steps, which include compilation.
    """

    step_s: float
    peak_gib: float
    loss: float
    first_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["tiny", "base_plus", "large"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--corrections", type=int, nargs="+", default=[0, 7])
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--ways", nargs="+", default=["eager", "compiled"], choices=("eager", "compiled"))
    parser.add_argument("--encoder", nargs="+", default=["trained", "frozen"], choices=("trained", "frozen"))
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device")
        print_claims([])
        return
    print(hardware())
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as name:
        store = _sample_store(Path(name), arguments.image_size)
        print(f"{'':18}{'images':>19}{'step':>12}{'peak':>10}{'ratio':>8}{'memory':>8}{'loss':>9}{'first':>9}")
        for model in arguments.models:
            for corrections in arguments.corrections:
                for encoder in arguments.encoder:
                    config = FitConfig(
                        model=model,
                        image_size=arguments.image_size,
                        corrections=corrections,
                        prompt="box",
                        freeze=("image_encoder",) if encoder == "frozen" else (),
                        batch_size=arguments.batch_size or BATCHES[model],
                    )
                    claims += _compare(store, config, torch.device(arguments.device), arguments)
    print_claims(claims)


def _compare(store: Store, config: FitConfig, device: torch.device, arguments: argparse.Namespace) -> list[Claim]:
    batch = _batch(store, config).to(device)
    weights = start_run(config, RunIdentity("", config.batch_size, 1), torch.device("cpu")).model.state_dict()
    frozen = bool(config.freeze)
    name = f"{config.model}, {'frozen' if frozen else 'full'}, {config.corrections} corrections"
    theirs = _measure_published(config, weights, batch, arguments.steps, device)
    print(f"{name}, batch of {config.batch_size}\n{_row('published', config, theirs)}", flush=True)
    claims: list[Claim] = []
    plain_s = 0.0
    for way in arguments.ways:
        run = _start(config, weights, device)
        compiled = way == "compiled"
        if compiled:
            run.model.compile_parts()
        step = TrainStep(run.model, run.optimizer, config.model_copy(update={"compile": compiled}), World(), device)
        ours = _measure(lambda batch, step=step: step([batch])[0]["loss"], batch, arguments.steps, device)
        ratio, memory = theirs.step_s / ours.step_s, ours.peak_gib / max(theirs.peak_gib, 1e-9)
        loss = abs(ours.loss - theirs.loss) / theirs.loss
        print(f"{_row(way, config, ours)}{ratio:8.2f}{memory:8.2f}{loss:9.4f}{ours.first_s:7.0f} s", flush=True)
        if frozen and not config.corrections:
            alone = _encoder_alone(run.model, batch, arguments.steps, device)
            print(f"  {'its encoder alone':16}{config.batch_size / alone:17.1f}/s", flush=True)
        if arguments.profile:
            _profile(lambda step=step: step([batch]), device)
        claims.append(Claim(f"relative difference of the loss, {name}, {way}", loss, LOSS_GOAL, at_most=True))
        plain_s = plain_s if compiled else ours.step_s
        if compiled and plain_s > ours.step_s:
            print(
                f"  pays after {(ours.first_s - WARM_UP_STEPS * ours.step_s) / (plain_s - ours.step_s):.0f} steps",
                flush=True,
            )
        if device.type == "cpu":
            goal = CPU_FROZEN_GOAL if frozen else CPU_FULL_GOAL
            claims.append(Claim(f"images/s, ours / published, {name}, {way}", ratio, goal))
        elif compiled:
            goal = FROZEN_GOALS[config.model] if frozen else FULL_GOAL
            claims.append(Claim(f"images/s, ours / published, {name}", ratio, goal))
            if frozen:
                claims.append(Claim(f"peak memory, ours / published, {name}", memory, MEMORY_GOAL, at_most=True))
        del run, step
    return claims


def _row(way: str, config: FitConfig, measured: Measured) -> str:
    images, step_ms = config.batch_size / measured.step_s, 1000 * measured.step_s
    return f"  {way:16}{images:17.1f}/s{step_ms:9.1f} ms{measured.peak_gib:6.1f} GiB"


def _measure_published(
    config: FitConfig, weights: dict[str, Tensor], batch: Batch, steps: int, device: torch.device
) -> Measured:
    """Measure one side in a separate function, so that nothing holds its model afterwards."""
    return _measure(
        PublishedStep(_start(config, weights, device).model, config.corrections, device), batch, steps, device
    )


def _start(config: FitConfig, weights: dict[str, Tensor], device: torch.device) -> Run:
    """Start from these weights, after the memory of the other side is free; otherwise it would be counted here."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    run = start_run(config, RunIdentity("", config.batch_size, 1), device)
    run.model.load_state_dict(weights)
    return run


def _measure(step: Callable[[Batch], float], batch: Batch, steps: int, device: torch.device) -> Measured:
    begun = time.perf_counter()
    loss = step(batch)
    for _ in range(WARM_UP_STEPS - 1):
        step(batch)
    _wait(device)
    first_s = time.perf_counter() - begun
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    for _ in range(steps):
        _wait(device)
        start = time.perf_counter()
        step(batch)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return Measured(statistics.median(seconds), peak, loss, first_s)


def _encoder_alone(model: PromptableSam, batch: Batch, steps: int, device: torch.device) -> float:
    def encode(batch: Batch) -> float:
        with torch.no_grad(), autocast(device):
            model.encode(batch.images[0])
        return 0.0

    return _measure(encode, batch, steps, device).step_s


def _profile(step: Callable[[], object], device: torch.device) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()
        _wait(device)
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=key, row_limit=25))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _sample_store(folder: Path, side: int) -> Store:
    write_sample(folder / "source", rois=3, size_px=2 * side)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=side))
    return open_store(folder / "s.zarr")


def _batch(store: Store, config: FitConfig) -> Batch:
    """Return a batch of tiles that each have as many objects as a run may use."""
    dataset = TileDataset(store.path, sample_options(config))
    objects = np.diff(store.column("tiles/object_offsets"))
    tiles = np.argsort(-objects, kind="stable")[: config.batch_size]
    return collate([dataset[SampleRequest(int(tile), 0)] for tile in np.resize(tiles, config.batch_size)])


if __name__ == "__main__":
    main()
