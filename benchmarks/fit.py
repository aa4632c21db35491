"""Compare the speed of `fit` with its own step on a resident batch, and with decoding ROIs on the fly.

    python -m benchmarks.fit [--model base_plus] [--rois 27] [--side 4096] [--steps 150] [--workers 12]

The store is synthetic, with at least 400 tiles of 1024 px. The encoder is frozen, and the model is compiled. A rate is
the number of images divided by the seconds of at least `--steps` steps, after a warm-up, both in whole epochs. Without
a GPU the script says that it was skipped; `--device cpu --image-size 128 --side 256 --rois 8` only shows that it runs.
The last line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.claims import Claim, hardware, print_claims
from benchmarks.on_the_fly import OnTheFlyDataset
from benchmarks.whole_run import fit_whole
from prep.build import BuildOptions, build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.store.store import Store, open_store
from train.config import FitConfig, read_config
from train.data.collate import Batch, collate
from train.data.dataset import SampleRequest, TileDataset
from train.data.loader import sample_options
from train.fit.state import RunIdentity, start_run
from train.fit.step import TrainStep
from train.runtime.distributed import World
from train.runtime.run_log import StepRecord, read_steps
from train.score.answers import tiles_with_objects
from train.transforms.sample import Sample

WARM_UP = 10
"""Minimum steps before the measured ones, up to the end of an epoch: its smaller last batch is compiled separately."""

ON_THE_FLY_SHARE = 10
"""The on-the-fly way makes this many times fewer steps, because each of them takes seconds."""


@dataclass(frozen=True)
class Rates:
    """Images per second of the three ways, and other numbers of `fit`."""

    fit: float
    resident: float
    on_the_fly: float
    data_wait: float
    first_step_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="base_plus")
    parser.add_argument("--rois", type=int, default=27)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device")
        print_claims([])
        return
    print(hardware())
    config = read_config(
        None,
        {
            "model": arguments.model,
            "image_size": arguments.image_size,
            "prompt": "box",
            "freeze": "image_encoder",
            "batch_size": arguments.batch_size,
            "workers": arguments.workers,
            "epochs": 1000,
            "device": arguments.device,
            "compile": arguments.device == "cuda",
            "report": False,
        },
    )
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        _write_source(source, arguments.rois, arguments.side)
        store = _build(source, arguments)
        rates = _measure(store, source, config, Path(name) / "run", arguments)
    _report(rates, len(store))


def _report(rates: Rates, tiles: int) -> None:
    print(f"{tiles} tiles; images/s, all images by all seconds of whole epochs, after at least {WARM_UP} steps")
    print(f"{'fit':24}{rates.fit:8.1f}   data wait {rates.data_wait:.1%}, first step after {rates.first_step_s:.1f} s")
    print(f"{'resident batch':24}{rates.resident:8.1f}")
    print(f"{'on the fly':24}{rates.on_the_fly:8.1f}")
    print_claims(
        [
            Claim("images/s, fit / resident batch", rates.fit / rates.resident, 0.98),
            Claim("data wait, share of the step", rates.data_wait, 0.02, at_most=True),
            Claim("images/s, fit / on the fly", rates.fit / rates.on_the_fly, 20.0),
        ]
    )


def _measure(store: Store, source: Path, config: FitConfig, out: Path, arguments: argparse.Namespace) -> Rates:
    begun = time.perf_counter()
    first: list[float] = []

    def note(record: StepRecord, _total: int) -> None:
        if record.step == 1:
            first.append(time.perf_counter() - begun)

    epoch = -(-len(tiles_with_objects(store, "train")) // config.batch_size)
    warm_up = _in_whole_epochs(WARM_UP, epoch)
    total = warm_up + _in_whole_epochs(arguments.steps, epoch)
    fit_whole(store, config.model_copy(update={"max_steps": total}), out, on_step=note)
    steps = read_steps(out)[warm_up:]
    seconds = sum(step.step_s for step in steps)
    device = torch.device(arguments.device)
    fly = DataLoader(
        OnTheFlyDataset(source, config.image_size),
        batch_size=config.batch_size,
        shuffle=True,
        num_workers=config.workers,
        collate_fn=_as_batch,
        pin_memory=device.type == "cuda",
    )
    few = -(-arguments.steps // ON_THE_FLY_SHARE)
    return Rates(
        fit=sum(step.images for step in steps) / seconds,
        resident=_rate(config, repeat(_resident_batch(store, config, device)), arguments.steps, 1, device),
        on_the_fly=_rate(config, chain.from_iterable(repeat(fly)), few, len(fly), device),
        data_wait=sum(step.data_wait_s for step in steps) / seconds,
        first_step_s=first[0],
    )


def _rate(config: FitConfig, batches: Iterator[Batch], steps: int, epoch: int, device: torch.device) -> float:
    """Measure images per second of the step on the given batches, including the wait for them.

    Batches that are loaded in parallel arrive together: one step waits for all, so no single step shows their cost.
    """
    run = start_run(config, RunIdentity("", config.batch_size, 1), device)
    if config.compile:
        run.model.compile_parts()
    step = TrainStep(run.model, run.optimizer, config, World(), device)
    for batch in islice(batches, _in_whole_epochs(WARM_UP, epoch)):
        step([batch])
    images = 0
    start = time.perf_counter()
    for batch in islice(batches, _in_whole_epochs(steps, epoch)):
        step([batch])
        images += batch.images.shape[1]
    return images / (time.perf_counter() - start)


def _in_whole_epochs(steps: int, epoch: int) -> int:
    """Round a number of steps up to whole epochs."""
    return -(-steps // epoch) * epoch


def _resident_batch(store: Store, config: FitConfig, device: torch.device) -> Batch:
    dataset = TileDataset(store.path, sample_options(config))
    objects = np.diff(store.column("tiles/object_offsets"))
    tiles = np.resize(np.flatnonzero(objects), config.batch_size)
    return collate([dataset[SampleRequest(int(tile), 0)] for tile in tiles]).to(device)


def _as_batch(samples: list[dict[str, Tensor]]) -> Batch:
    """Collate samples of the on-the-fly data set into a batch for the same step."""
    return collate([_as_sample(sample) for sample in samples])


def _as_sample(sample: dict[str, Tensor]) -> Sample:
    masks, boxes = torch.as_tensor(sample["masks"]), torch.as_tensor(sample["boxes"])
    count = len(masks)
    return Sample(
        tile_index=0,
        image=torch.as_tensor(sample["image"]),
        segments=masks,
        ignore=torch.zeros(masks.shape[1:], dtype=torch.bool),
        point_coords=boxes.reshape(count, 2, 2).float(),
        point_labels=torch.tensor([[2, 3]], dtype=torch.int32).expand(count, 2),
        object_ids=torch.arange(count),
        class_ids=torch.zeros(count, dtype=torch.int64),
    )


def _write_source(source: Path, rois: int, side: int) -> None:
    """Write copies of one ROI under different names: painting each would take minutes and change no rate."""
    stems = write_sample(source, rois=rois, size_px=64)
    (painted,) = write_sample(source.with_name("painted"), rois=1, size_px=side)
    for kind in ("images", "masks"):
        for stem in stems:
            shutil.copyfile(source.with_name("painted") / kind / f"{painted}.png", source / kind / f"{stem}.png")


def _build(source: Path, arguments: argparse.Namespace) -> Store:
    path = source.with_name("bcss.zarr")
    build_store(source, path, BuildConfig(size_px=arguments.image_size), BuildOptions(workers=arguments.workers))
    return open_store(path)


if __name__ == "__main__":
    main()
