"""Fixtures that several test folders share: source folders, a store built from one of them, and the real data."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image

from prep.build import build_store
from prep.config import BuildConfig
from prep.sample.write import write_sample
from schemas.store.store import Store, open_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Tests run in parallel, and sums of floats depend on the number of threads. So this process and all processes that
# tests start use one thread. The variable must be set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# Stores have many small files. In memory they are made and removed ten times as fast as on many disks. The tests write
# 2 GB at most, but their processes need memory as well, and a container may have less than the machine.
MEMORY_DISK, CGROUP_LIMIT, ROOM_BYTES = Path("/dev/shm"), Path("/sys/fs/cgroup/memory.max"), 8 << 30
LIMIT = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
IS_ROOMY = MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free >= ROOM_BYTES
if IS_ROOMY and (LIMIT == "max" or int(LIMIT) >= 2 * ROOM_BYTES):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY_DISK))

# A shell starts a background job with Ctrl-C ignored, and all processes of the job inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Examples have no deadline, because a busy machine is not a defect. Continuous integration draws the same examples in
# each run, so that only a change can make it fail; elsewhere, each run draws new ones.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "local"))

# Python looks for unused objects each time that there are 700 new ones, and often among all the objects of the imported
# libraries, too. That took a tenth of the time of the tests.
gc.set_threshold(10_000, 20, 20)

REAL_ROI = "TCGA-A2-A0D2"

WriteRoi = Callable[..., Path]


def pytest_collection_finish() -> None:
    """Spare the objects of the imported modules and of the tests in each later search for unused objects."""
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real masks and images, which is not part of the project."""
    folder = os.environ.get("BCSS_REAL_DATA")
    if not folder:
        pytest.skip("BCSS_REAL_DATA does not name the folder of real masks and images")
    return Path(folder) / "bcss"


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that the tests of one file share. It is removed after the last test, because a run takes 0.5 GB.

    If a test fails, the folder stays for inspection.
    """
    folder, failed_before = tmp_path_factory.mktemp("module"), request.session.testsfailed
    yield folder
    if request.session.testsfailed == failed_before:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if not program:
        pytest.skip("no chromium is installed (Debian: apt install chromium)")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of published loss values."""
    folder = os.environ.get("BCSS_REAL_DATA")
    if not folder:
        pytest.skip("BCSS_REAL_DATA is not set; the published loss values are beside its folder")
    return Path(folder).parent / "golden"


@pytest.fixture(scope="session")
def real_source(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder with one real ROI, the only one with both image and mask."""
    source = tmp_path_factory.mktemp("real")
    for name in ("images", "masks"):
        (source / name).mkdir()
        (found,) = (real_data / name).glob(f"{REAL_ROI}*")
        (source / name / found.name).symlink_to(found.resolve())
    return source


@pytest.fixture(scope="session")
def sample_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder with six small synthetic ROIs, not square, from four institutions."""
    source = tmp_path_factory.mktemp("sample")
    write_sample(source, rois=6, size_px=288, seed=1)
    return source


@pytest.fixture(scope="session")
def store(sample_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of the synthetic ROIs, in tiles of 128 px."""
    path = tmp_path_factory.mktemp("store") / "sample.zarr"
    build_store(sample_source, path, BuildConfig(size_px=128))
    return open_store(path)


@pytest.fixture
def write_roi(tmp_path: Path) -> WriteRoi:
    """A function that writes one ROI to `tmp_path / "source"`; its mask is an array or a picture."""

    def write(stem: str, mask: NDArray[np.uint8] | Image.Image, image: NDArray[np.uint8] | None = None) -> Path:
        source = tmp_path / "source"
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        if image is None:
            generator = np.random.default_rng(0)
            image = generator.integers(0, 256, (picture.height, picture.width, 3), np.uint8)
        for name, content in (("images", Image.fromarray(image)), ("masks", picture)):
            (source / name).mkdir(parents=True, exist_ok=True)
            content.save(source / name / f"{stem}.png")
        return source

    return write
