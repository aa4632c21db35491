"""Measure `--cache-features`: images per second with and without the cache, its size, and when it pays off.

    python -m benchmarks.cache [--model tiny] [--size 256] [--tiles 12] [--steps 24] [--batch-size 2] [--device cpu]
    python -m benchmarks.cache --model large --size 1024 --tiles 64 --steps 64 --batch-size 4 --workers 14 --device cuda

`fit` runs from the same random weights on a synthetic store, with the image encoder and the prompt encoder frozen. A
second pair of runs also freezes the decoder's two fine layers, which makes the cache smaller. Runs are compiled on a
GPU. Rates include all waiting for data, but not the first epoch, in which every size of batch is compiled. The files
were just written, so they are read from memory if they fit. The last line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.claims import Claim, hardware, print_claims
from benchmarks.whole_run import fit_whole
from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.store.store import Store, open_store
from train.config import FitConfig, read_config
from train.features.fill import filled_features
from train.fit.state import RunIdentity, start_run
from train.runtime.device import pick_device
from train.runtime.distributed import World
from train.runtime.run_log import StepRecord, read_steps
from train.runtime.stop import StopRequest
from train.score.answers import tiles_with_objects

GOAL_SPEEDUP = 3.0
ROUNDING = 2**-9
"""Largest relative error of rounding to bfloat16."""

FROZEN = {
    "decoder trained": "decoder_only",
    "its fine layers frozen": "decoder_only,sam_mask_decoder.conv_s0,sam_mask_decoder.conv_s1",
}


@dataclass(frozen=True)
class Rate:
    """The rates of a run after its first epoch.

    Attributes:
        images_per_s: Images per second, including the time spent waiting for data.
        data_wait: Fraction of the time spent waiting for data.
    """

    images_per_s: float
    data_wait: float


@dataclass(frozen=True)
class Measured:
    """The results for one choice of frozen layers.

    Attributes:
        plain: Rate of the run without the cache.
        cached: Rate of the run with the cache.
        fill_s: Seconds that filling the cache took.
        view_bytes: Size of one cached view of a tile, in bytes.
        tiles: Number of training tiles.
        loss_differences: Relative difference between the losses of the two runs, for each step.
    """

    plain: Rate
    cached: Rate
    fill_s: float
    view_bytes: int
    tiles: int
    loss_differences: list[float]

    @property
    def speedup(self) -> float:
        """Ratio of images per second with the cache to those without."""
        return self.cached.images_per_s / self.plain.images_per_s

    @property
    def break_even_epochs(self) -> float:
        """Epochs until the cache has saved as much time as filling it took; infinite if it never does."""
        saved_s = self.tiles / self.plain.images_per_s - self.tiles / self.cached.images_per_s
        return self.fill_s / saved_s if saved_s > 0 else float("inf")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", choices=("tiny", "small", "base_plus", "large"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--tiles", type=int, default=12)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="Compile the model. Default: only on a GPU."
    )
    parser.add_argument("--folder", type=Path, help="Where store and cache are made. Default: a temporary folder.")
    arguments = parser.parse_args()
    if arguments.compile is None:
        arguments.compile = arguments.device == "cuda"
    device = pick_device(arguments.device)
    print(hardware(), flush=True)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logging.getLogger("train.features.fill").setLevel(logging.INFO)
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        store = _sample_store(Path(name), arguments.size, arguments.tiles)
        for label, freeze in FROZEN.items():
            config = _config(arguments, freeze)
            claims += _claims(label, arguments, _measure(store, config, Path(name) / label))
    if arguments.model != "large" or device.type != "cuda":
        print("skipped: the goal for images per second is one of --model large --device cuda")
    print_claims(claims)


def _config(arguments: argparse.Namespace, freeze: str) -> FitConfig:
    return read_config(
        None,
        {
            "model": arguments.model,
            "image_size": arguments.size,
            "batch_size": arguments.batch_size,
            "workers": arguments.workers,
            "device": arguments.device,
            "compile": arguments.compile,
            "max_steps": arguments.steps,
            "epochs": arguments.steps,
            "freeze": freeze,
            "report": False,
        },
    )


def _measure(store: Store, config: FitConfig, out: Path) -> Measured:
    tiles: list[int] = tiles_with_objects(store, "train").tolist()
    epoch = -(-len(tiles) // config.batch_size)
    if (config.max_steps or 0) <= epoch:
        raise SystemExit(f"--steps: the first epoch has {epoch}, and only later ones are measured; give more")
    device = pick_device(config.device)
    model = start_run(config, RunIdentity("", 1, 1), device).model
    start = time.perf_counter()
    cache = filled_features(model, store, config, tiles, World(), device, StopRequest())
    fill_s = time.perf_counter() - start
    del model
    fit_whole(store, config, out / "plain")
    fit_whole(store, config.model_copy(update={"cache_features": True}), out / "cached")
    plain, cached = read_steps(out / "plain"), read_steps(out / "cached")
    differences = [abs(one.loss - two.loss) / one.loss for one, two in zip(plain, cached, strict=True)]
    return Measured(_rate(plain), _rate(cached), fill_s, cache.view_bytes, len(tiles), differences)


def _rate(steps: list[StepRecord]) -> Rate:
    later = [step for step in steps if step.epoch > 1]
    seconds = sum(step.step_s for step in later)
    return Rate(sum(step.images for step in later) / seconds, sum(step.data_wait_s for step in later) / seconds)


def _claims(label: str, arguments: argparse.Namespace, found: Measured) -> list[Claim]:
    print(f"\n{arguments.model}, {arguments.size} px, {found.tiles} tiles, {label}")
    for name, run in (("without cache", found.plain), ("with cache", found.cached)):
        print(f"{name:16}{run.images_per_s:8.2f} images/s, {run.data_wait:4.0%} waiting for data")
    print(f"speed-up        {found.speedup:8.2f} x")
    print(f"size            {found.view_bytes / 1e6:8.2f} MB per view, {8 * found.view_bytes / 1e6:.1f} MB per tile")
    print(f"fill            {found.fill_s:8.1f} s, paid for after {found.break_even_epochs:.1f} epochs")
    first, largest = found.loss_differences[0], max(found.loss_differences)
    print(f"loss            differs by {first:.1e} at the first step, {largest:.1e} at most", flush=True)
    where = f"{arguments.model}, {arguments.size} px, {arguments.device}, {label}"
    # Later losses also differ because the optimizer has moved the weights apart.
    what = f"first loss, relative difference / bfloat16's rounding, {where}"
    claims = [Claim(what, first / ROUNDING, 1.0, at_most=True)]
    if arguments.model == "large" and arguments.device == "cuda":
        claims.append(Claim(f"images/s, cached / frozen, {where}", found.speedup, GOAL_SPEEDUP))
    return claims


def _sample_store(folder: Path, side: int, tiles: int) -> Store:
    """Build a store of at least this many tiles, four or six per ROI."""
    write_sample(folder / "source", rois=-(-tiles // 4), size_px=2 * side)
    build_store(folder / "source", folder / "s.zarr", BuildConfig(size_px=side))
    return open_store(folder / "s.zarr")


if __name__ == "__main__":
    main()
