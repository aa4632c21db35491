"""Measure how costs grow: open, order and read stores of 1,000 to 10,000,000 tiles, and build stores of 1 to 64 ROIs.

    python -m benchmarks.scale [--tiles 1000 ... 10000000] [--rois 1 4 16 64]

The stores have tiles of 16 px with one object each, and the project's own code writes their arrays. So everything
except the pixels is as large as in a real store with as many tiles. One shard of pixels, and one chunk of each column
that holds no numbers of rows, are written; all others are hard links to it, so ten million tiles take a minute and a
gigabyte. The files stay in the page cache, so CPU times of the reader are measured, and not the disk. The last line is
JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import zarr

from benchmarks.claims import Claim, hardware, print_claims
from prep.build import build_store
from prep.config import BuildConfig
from prep.files import WrittenFile, sha256_of
from prep.sample.write import write_sample
from prep.write import shards
from prep.write.checksums import write_checksums
from prep.write.shards import chunk_path, create_array
from schemas.layout import ATTRIBUTES_KEY, PIXEL_ARRAYS, ArraySpec, array_specs
from schemas.manifest import Completion
from schemas.prompt_kinds import PointCounts
from schemas.store.store import open_store
from train.data.dataset import SampleOptions, SampleRequest, TileDataset
from train.data.sampler import EpochSampler

SIDE = 16
READS = 200
PROMPTS = 2000
"""Number of tiles whose prompts are read in random order."""

SHARD_TILES = 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs="+", default=[10**power for power in range(3, 8)])
    parser.add_argument("--rois", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        _measure_store(arguments.read)
        return
    print(hardware())
    with tempfile.TemporaryDirectory() as name:
        claims = _stores(Path(name), arguments.tiles) + _builds(Path(name), arguments.rois)
    print_claims(claims)


def _stores(folder: Path, counts: list[int]) -> list[Claim]:
    """Measure each store in a new process, so that its memory can be measured separately."""
    template = _template(folder)
    print(f"\n{'tiles':>9}{'open':>10}{'columns':>10}{'order':>10}{'read':>10}{'prompts':>10}{'memory':>10}")
    found: list[dict[str, float]] = []
    for count in counts:
        path = folder / f"{count}.zarr"
        _write_store(path, template, count)
        command = [sys.executable, "-m", "benchmarks.scale", "--read", str(path)]
        figures = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        names = ("open_ms", "columns_ms", "order_ms", "read_ms", "prompts_ms", "memory_mb")
        found.append(dict(zip(names, map(float, figures), strict=True)))
        row = found[-1]
        print(
            f"{count:9}{row['open_ms']:7.0f} ms{row['columns_ms']:7.0f} ms{row['order_ms']:7.1f} ms"
            f"{row['read_ms']:7.2f} ms{row['prompts_ms']:7.2f} ms{row['memory_mb']:7.0f} MB"
        )
    first, last = found[0], found[-1]
    growth = counts[-1] / counts[0]
    return [
        Claim(f"opening, {counts[-1]} / {counts[0]} tiles", last["open_ms"] / first["open_ms"], 2.0, at_most=True),
        Claim(
            f"reading a sample, {counts[-1]} / {counts[0]} tiles", last["read_ms"] / first["read_ms"], 2.0, at_most=True
        ),
        Claim("prompts of a tile in random order, ms", last["prompts_ms"], 5.0, at_most=True),
        Claim(f"memory, MB, {counts[-1]} tiles", last["memory_mb"], 1000.0, at_most=True),
        Claim("order of an epoch, ms a million tiles", last["order_ms"] / counts[-1] * 1e6, 1000.0, at_most=True),
        Claim(f"columns, {growth:.0f} times the tiles", last["columns_ms"] / first["columns_ms"], growth, at_most=True),
    ]


def _measure_store(path: Path) -> None:
    """Print the CPU times to open, read columns, order an epoch and read a random sample, and the memory after them."""
    # Read a sample of another store first, so that imports and first calls are not counted.
    TileDataset(str(path.with_name("template.zarr")), SampleOptions(image_size=64, prompt="box"))[SampleRequest(0, 0)]
    before = _resident_mb()
    start = time.process_time()
    dataset = TileDataset(str(path), SampleOptions(image_size=SIDE, prompt="box"))
    count = len(dataset.store)
    opened = time.process_time()
    dataset[SampleRequest(0, 0)]
    columns = time.process_time()
    next(iter(EpochSampler(np.arange(count), batch_size=8, seed=0)))
    ordered = time.process_time()
    requests = [SampleRequest(index, 0) for index in random.Random(0).sample(range(count), READS)]
    times: list[float] = []
    for request in requests:
        begun = time.process_time()
        dataset[request]
        times.append(time.process_time() - begun)
    read = sorted(times)[READS // 2]
    # Clicks have the largest columns, so their parts are the first that do not fit into memory.
    begun = time.process_time()
    for index in random.Random(1).sample(range(count), min(PROMPTS, count)):
        dataset.store.prompts(index, "multi_point")
    prompts = (time.process_time() - begun) / min(PROMPTS, count)
    seconds = (opened - start, columns - opened, ordered - columns, read, prompts)
    print(*(1e3 * took for took in seconds), _resident_mb() - before)


def _resident_mb() -> float:
    """Return the peak memory; getrusage is not used, because a process inherits its maximum."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


def _template(folder: Path) -> dict[str, Any]:
    """Return the manifest of a real small store."""
    write_sample(folder / "template", rois=3, size_px=64)
    build_store(folder / "template", folder / "template.zarr", BuildConfig(size_px=64, min_area_px=8))
    return open_store(folder / "template.zarr").manifest.model_dump(mode="json", by_alias=True)


def _write_store(path: Path, manifest: dict[str, Any], count: int) -> None:
    """Write a finished store with this many tiles, one object each; see the top of this file."""
    group = zarr.create_group(path, zarr_format=3)
    written: list[WrittenFile] = []
    with patch.object(shards, "SHARD_BYTES", SHARD_TILES * SIDE * SIDE * 3):
        for spec in array_specs(SIDE, "uint8", PointCounts(8, 8)):
            rows = count + (spec.axis == "tile_bound")
            array = create_array(group, spec, rows, sharded=spec.path in PIXEL_ARRAYS)
            step = int((array.shards or array.chunks)[0])
            if spec.path in ("objects/tile_index", "tiles/object_offsets"):
                for start in range(0, rows, step):
                    array[start : start + step] = np.arange(start, min(start + step, rows))
            else:
                array[: min(step, rows)] = _values(spec, min(step, rows))
                written += _linked(path, spec, -(-rows // step))
    complete = Completion(tiles=count, objects=count, checksums_sha256=write_checksums(group, path, written))
    group.attrs[ATTRIBUTES_KEY] = manifest | {"tile_size_px": SIDE, "complete": complete.model_dump(mode="json")}


def _values(spec: ArraySpec, rows: int) -> np.ndarray:
    shape = (rows, *spec.row_shape)
    if spec.dtype == "str":
        split = spec.path == "tiles/split"
        return np.array(["train" if split else f"TCGA-A1-{row % 997:04}" for row in range(rows)], object)
    if spec.path in ("images", "segments"):
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return np.ones(shape, spec.dtype)


def _linked(path: Path, spec: ArraySpec, files: int) -> list[WrittenFile]:
    """Make all further files of an array links to its first one."""
    keys = [chunk_path(spec.path, number, spec) for number in range(files)]
    first = path / keys[0]
    for key in keys[1:]:
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).hardlink_to(first)
    digest, size_bytes = sha256_of(first), first.stat().st_size
    return [WrittenFile(key, digest, size_bytes) for key in keys]


def _builds(folder: Path, counts: list[int]) -> list[Claim]:
    """Measure seconds per megapixel by number of ROIs, in one process."""
    print(f"\n{'ROIs':>9}{'Mpx':>10}{'build':>10}{'a Mpx':>10}")
    costs: list[float] = []
    for count in counts:
        source = folder / f"rois{count}"
        write_sample(source, rois=count, size_px=1024)
        start = time.perf_counter()
        build_store(source, folder / f"rois{count}.zarr", BuildConfig(size_px=512))
        took = time.perf_counter() - start
        pixels = sum(s.width_px * s.height_px for s in open_store(folder / f"rois{count}.zarr").manifest.sources) / 1e6
        costs.append(took / pixels)
        print(f"{count:9}{pixels:10.1f}{took:8.2f} s{took / pixels * 1e3:7.0f} ms")
    return [Claim(f"build, ms a Mpx, {counts[-1]} / {counts[1]} ROIs", costs[-1] / costs[1], 1.1, at_most=True)]


if __name__ == "__main__":
    main()
