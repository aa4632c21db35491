"""Measure a build: its time relative to bare decoding, its speed with two processes, its memory, and its size on disk.

    python -m benchmarks.build [--rois 8] [--size 4096] [--repeats 3]

The source images are synthetic and as large as those of BCSS. The last line is JSON: a list of claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.claims import Claim, hardware, medians, print_claims
from prep.build import BuildOptions, build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from prep.source.discover import find_rois
from schemas.picture.decode import read_image, read_mask
from schemas.store.store import open_store

BASE_MB = 400
RAW_FACTOR = 2.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rois", type=int, default=8)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        write_sample(source, arguments.rois, arguments.size)
        megapixels = arguments.rois * arguments.size**2 * 9 / 8 / 1e6
        seconds = medians(
            {
                "bare decode, Pillow": lambda: _decode_with_pillow(source),
                "decode of a build": lambda: _decode(source),
                "build, label objects": lambda: _build(source, 1),
                "build, component objects": lambda: _build(source, 1, objects="component"),
                "build, two processes": lambda: _build(source, 2),
            },
            arguments.repeats,
        )
        start_s = _start_s()
        peak_mb = _peak_of_worker_mb(source)
        sizes = {codec: _size_ratio(source, codec) for codec in ("fast", "small")}
    print(hardware())
    raw_mb = arguments.size**2 * 9 / 8 * 4 / 1e6
    print(f"{arguments.rois} ROIs of {megapixels / arguments.rois:.1f} Mpx, one process unless said")
    decode, _, one, components, two = seconds.values()
    for name, took in seconds.items():
        print(f"{name:26}{took:8.2f} s {megapixels / took:8.1f} Mpx/s {took / decode:8.2f} x decode")
    print(f"{'peak of a worker':26}{peak_mb:8.0f} MB, bound {RAW_FACTOR * raw_mb + BASE_MB:.0f} MB")
    print(f"{'start of a build':26}{start_s:8.2f} s of CPU time")
    for codec, ratio in sizes.items():
        print(f"store, codec {codec:13}{ratio:8.2f} x the PNGs of its tiles")
    print_claims(
        [
            Claim("build / bare decode with Pillow, one process", one / decode, 1.6, at_most=True),
            Claim("build of components / bare decode with Pillow, one process", components / decode, 2.5, at_most=True),
            Claim("speed of two processes / one", one / two, 1.85),
            Claim("CPU seconds to start", start_s, 1.0, at_most=True),
            Claim("peak MB of a worker", peak_mb, RAW_FACTOR * raw_mb + BASE_MB, at_most=True),
            Claim("store / PNG, fast", sizes["fast"], 1.7, at_most=True),
            Claim("store / PNG, small", sizes["small"], 1.0, at_most=True),
        ]
    )


def _decode_with_pillow(source: Path) -> None:
    for roi in find_rois(source).rois:
        for path in (roi.image_path, roi.labels_path):
            with Image.open(path) as image:
                np.asarray(image)


def _decode(source: Path) -> None:
    for roi in find_rois(source).rois:
        read_image(roi.image_path)
        read_mask(roi.labels_path)


def _build(source: Path, workers: int, **settings: object) -> None:
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        build_store(
            source, Path(folder) / "s.zarr", BuildConfig.model_validate(settings), BuildOptions(workers=workers)
        )


def _start_s() -> float:
    """CPU time of a new process that imports everything that a build of labels needs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import prep.build"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _peak_of_worker_mb(source: Path) -> float:
    """Peak memory of a process that prepares these ROIs; the process is new, because a peak never falls."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_build_and_measure, (source,))


def _build_and_measure(source: Path) -> float:
    _build(source, 1, objects="component")
    # getrusage is not used, because a spawned process inherits its maximum from its parent.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1e3


def _size_ratio(source: Path, codec: str) -> float:
    """Return the size of the store's images divided by the size of the same tiles as PNG."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        path = Path(folder) / "s.zarr"
        build_store(source, path, BuildConfig.model_validate({"codec": codec}), BuildOptions(workers=2))
        stored = sum(file.stat().st_size for file in (path / "images").rglob("*") if file.is_file())
        png = 0
        for record in open_store(path):
            buffer = io.BytesIO()
            Image.fromarray(record.image).save(buffer, "PNG")
            png += buffer.tell()
    return stored / png


if __name__ == "__main__":
    main()
