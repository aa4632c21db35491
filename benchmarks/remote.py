"""Measure a store in a bucket and a local one: samples per second and requests per sample; and a build with Dask.

    python -m benchmarks.remote [--rois 64] [--workers 1 2] [--samples 200]

The bucket is a server of moto on this machine, so the figures show what a bucket costs in work, without a network. Moto
itself needs most of the time of a request; requests per sample do not depend on it. The last line is JSON: a list of
claim, value, goal, met.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.claims import Claim, hardware, print_claims
from prep.build import BuildOptions, build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from train.data.dataset import SampleOptions, SampleRequest, TileDataset

BUCKET, SIDE = "bench", 512
START_S = 60
GOAL_REQUESTS, GOAL_WORKERS = 3.0, 1.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rois", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    print(hardware())
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        write_sample(source, rois=arguments.rois, size_px=2 * SIDE)
        claims = _dask(source, arguments.workers) + _bucket(source, Path(name), arguments.samples)
    print_claims(claims)


def _dask(source: Path, workers: list[int]) -> list[Claim]:
    """Build the store on clusters of this machine; the time includes the start of the cluster."""
    seconds: list[float] = []
    for count in workers:
        start = time.perf_counter()
        options = BuildOptions(workers=count, dask_address="local")
        build_store(source, source.with_name(f"dask{count}.zarr"), BuildConfig(size_px=SIDE), options)
        seconds.append(time.perf_counter() - start)
        print(f"Dask, {count} workers {seconds[-1]:8.1f} s", flush=True)
    return [
        Claim(f"speed of a build, {workers[-1]} Dask workers / {workers[0]}", seconds[0] / seconds[-1], GOAL_WORKERS)
    ]


def _bucket(source: Path, folder: Path, samples: int) -> list[Claim]:
    local, url, log = str(folder / "local.zarr"), f"s3://{BUCKET}/s.zarr", folder / "moto.log"
    with _server(log):
        for place in (local, url):
            build_store(source, place, BuildConfig(size_px=SIDE), BuildOptions(work_dir=folder / "work"))
        asked = 0.0
        for name, place in (("local", local), ("bucket", url)):
            dataset = TileDataset(place, SampleOptions(image_size=SIDE, prompt="box"))
            dataset[SampleRequest(0, 0)]
            before, start = _requests(log), time.perf_counter()
            for index in random.Random(0).choices(range(len(dataset.store)), k=samples):
                dataset[SampleRequest(index, 0)]
            rate = samples / (time.perf_counter() - start)
            asked = (_requests(log) - before) / samples
            print(f"{name:8}{rate:8.1f} samples/s {asked:6.2f} requests per sample", flush=True)
    return [Claim("requests per sample from a bucket", asked, GOAL_REQUESTS, at_most=True)]


def _requests(log: Path) -> int:
    """Number of requests that the server has answered."""
    # A quotation mark or the end of a color follows.
    return log.read_text().count(" HTTP/1.1")


@contextmanager
def _server(log: Path) -> Generator[None]:
    """Run an S3 server with an empty bucket.

    Raises:
        SystemExit: Moto is not installed, or does not start.
    """
    with log.open("w") as file:
        command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stderr=file, stdout=file)
    try:
        begun, found = time.monotonic(), None
        while found is None:
            if process.poll() is not None or time.monotonic() - begun > START_S:
                raise SystemExit(f"the S3 server did not start: {log.read_text()}")
            found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
            time.sleep(0.05)
        os.environ |= {
            "AWS_ENDPOINT_URL": found[0],
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        with urlopen(Request(f"{found[0]}/{BUCKET}", method="PUT")):
            pass
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
