"""Compare reading a training sample from the store with decoding the ROI's PNGs again for each sample.

    python -m benchmarks.loader [--sides 3072 4096] [--repeats 5] [--samples 5000]

Samples have 1024 px, up to 3 objects, flips and prompts, and are ready for the device; they are made on one thread.
Codecs are compared on the tissue that BCSS_REAL_DATA names, or otherwise on synthetic ROIs. The last line is JSON: a
list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from itertools import count, islice
from pathlib import Path

import torch

from benchmarks.claims import Claim, hardware, medians, print_claims
from benchmarks.codecs import compare_codecs
from benchmarks.on_the_fly import OnTheFlyDataset
from prep.build import BuildOptions, build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.store.store import Store, open_store
from train.config import FitConfig
from train.data.collate import collate
from train.data.dataset import SampleOptions, SampleRequest, TileDataset
from train.data.loader import training_dataset, training_loader
from train.data.sampler import EpochSampler
from train.runtime.loading_process import prepare_process

SIZE = 1024
ROIS = 3
BATCH = 4
BATCHES_A_TURN = 16
"""Batches per turn; they take as long as one sample on the fly, which evicts the caches before the first batch."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[3072, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=5000)
    arguments = parser.parse_args()
    print(hardware())
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        goal = 100.0
        for side in arguments.sides:
            write_sample(folder / str(side), rois=ROIS, size_px=side)
            ratio = _compare_rates(folder / str(side), side, arguments.repeats)
            claims.append(Claim(f"samples/s, store / on the fly, one core, ROIs of {side} px", ratio, goal))
            goal = max(goal, ratio)
        tiles = _build(folder / str(arguments.sides[0]), layout="tile")
        claims += _epochs(tiles, arguments.samples)
        real = os.environ.get("BCSS_REAL_DATA")
        claims += compare_codecs(_tissue(Path(real), folder) if real else tiles, folder, arguments.repeats)
    print_claims(claims)


def _compare_rates(source: Path, side: int, repeats: int) -> float:
    """Measure samples of whole ROIs resized to a square, which both ways produce in the same form."""
    _one_thread()
    theirs = OnTheFlyDataset(source, SIZE)
    ours = TileDataset(_build(source, layout="resize").path, SampleOptions(SIZE, prompt="box"))
    numbers = count()

    def batches_of_ours() -> None:
        for _ in range(BATCHES_A_TURN):
            collate([ours[SampleRequest(next(numbers) % ROIS, next(numbers))] for _ in range(BATCH)])

    def one_of_theirs() -> None:
        theirs[next(numbers) % ROIS]

    seconds = medians({"store": batches_of_ours, "on the fly": one_of_theirs}, repeats)
    each = {"store": seconds["store"] / (BATCH * BATCHES_A_TURN), "on the fly": seconds["on the fly"]}
    print(f"\nROIs of {side} px, one thread, batches of {BATCH} from the store")
    for label, took in each.items():
        print(f"{label:12}{took * 1e3:9.1f} ms per sample{1 / took:9.2f} samples/s")
    return each["on the fly"] / each["store"]


def _epochs(store: Store, samples: int) -> list[Claim]:
    """Measure the first batch of an epoch, and memory over many samples, with two loading processes."""
    sampler = EpochSampler(torch.arange(len(store)).numpy(), BATCH, seed=0)
    config = FitConfig(image_size=SIZE, batch_size=BATCH, workers=2, prompt="box")
    loader = training_loader(training_dataset(store, config), config, sampler, torch.device("cpu"))
    first_batch_s: list[float] = []
    memory: list[tuple[int, float, float]] = []
    seen = 0
    for epoch in count():
        sampler.epoch = epoch
        start = time.perf_counter()
        for number, batch in enumerate(loader):
            if not number:
                first_batch_s.append(time.perf_counter() - start)
            seen += batch.images.shape[1]
        pids = [os.getpid(), *(worker.pid for worker in loader._iterator._workers)]  # pyright: ignore
        own, *workers = [_resident_mb(pid) for pid in pids]
        memory.append((seen, own, max(workers)))
        if seen >= samples:
            break
    later = sorted(first_batch_s[1:])[len(first_batch_s) // 2]
    print(f"\nloader, 2 processes: first batch {first_batch_s[0]:.2f} s with their start, then {later:.3f} s per epoch")
    step = max(len(memory) // 6, 1)
    for done, own, worker in [*islice(memory, 0, None, step), memory[-1]]:
        print(f"{done:8} samples{own:9.0f} MB here{worker:9.0f} MB in the larger loading process")
    settled = next(entry for entry in memory if entry[0] >= samples / 10)
    growth = max(memory[-1][1] / settled[1], memory[-1][2] / settled[2])
    return [
        Claim("first batch of a later epoch, s", later, 1.0, at_most=True),
        Claim(f"resident memory after {seen} samples / after {settled[0]}", growth, 1.05, at_most=True),
    ]


def _build(source: Path, layout: str) -> Store:
    path = source.with_name(f"{source.name}.{layout}.zarr")
    build_store(source, path, BuildConfig.model_validate({"size_px": SIZE, "layout": layout}), BuildOptions(workers=2))
    return open_store(path)


def _tissue(real: Path, folder: Path) -> Store:
    """Build a store of the ROIs that have both image and mask."""
    source = folder / "tissue"
    for image in (real / "bcss" / "images").glob("*.png"):
        for kind in ("images", "masks"):
            (source / kind).mkdir(parents=True, exist_ok=True)
            (source / kind / image.name).symlink_to((real / "bcss" / kind / image.name).resolve())
    return _build(source, layout="tile")


def _one_thread() -> None:
    torch.set_num_threads(1)
    prepare_process()


def _resident_mb(pid: int) -> float:
    """Return the memory that a process does not share, so that batches in shared memory count only once."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
