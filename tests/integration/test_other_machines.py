"""Both programs run on machines with other locales, names, home folders, shared memory and process start methods."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import pytest

from tests.folders import bytes_of

ROOT = Path(__file__).parents[2]
SMALL_BUILD = ("--size", "64", "--workers", "2")
SMALL_FIT = (
    "--model",
    "nano",
    "--image-size",
    "128",
    "--max-steps",
    "1",
    "--batch-size",
    "1",
    "--device",
    "cpu",
    "--no-report",
)
NAME = "TCGA-A1-Z000-DX1 größe é"

# The C locale, without the two ways in which Python replaces it by UTF-8.
NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def _run(*command: object, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run a program from the checkout; None removes an environment variable."""
    changed = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    left = {key: value for key, value in changed.items() if value is not None}
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=cwd, env=left, capture_output=True, text=True, encoding="utf-8", timeout=200, check=False
    )


def _prep(*arguments: object, cwd: Path, **environment: str | None) -> str:
    ran = _run(sys.executable, "-m", "prep.cli", *arguments, cwd=cwd, **environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _train(*arguments: object, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    ran = _run(sys.executable, "-m", "train.cli", *arguments, cwd=cwd, **environment)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with a store. Its name, and that of one ROI, has spaces and letters beyond ASCII.

    It is on a disk, because programs with a shared memory of their own do not see what is in /dev/shm.
    """
    with TemporaryDirectory(dir=gettempdir()) as disk:
        yield _filled(Path(disk) / "Gewebe für die Übung")


def _filled(folder: Path) -> Path:
    folder.mkdir()
    _prep("sample", "die Daten", "--rois", 3, "--size", 128, cwd=folder)
    for kind in ("images", "masks"):
        path = sorted((folder / "die Daten" / kind).iterdir())[0]
        path.rename(path.with_stem(NAME))
    _prep("build", "die Daten", "--out", "ein Speicher ü.zarr", *SMALL_BUILD, cwd=folder)
    return folder


STORE = "ein Speicher ü.zarr"


def test_locale_without_utf8_gives_the_same_bytes(place: Path) -> None:
    said = _prep("build", "die Daten", "--out", "posix ü.zarr", *SMALL_BUILD, cwd=place, **NO_UTF8)
    assert "posix ü.zarr: 18 tiles" in said
    assert bytes_of(place / "posix ü.zarr") == bytes_of(place / STORE)
    sources = json.loads((place / STORE / "zarr.json").read_text())["attributes"]["bcss"]["sources"]
    assert NAME in {source["frame_id"] for source in sources}


@pytest.mark.slow
def test_locale_without_utf8_trains_and_writes_names_of_rois(place: Path) -> None:
    _train("fit", STORE, "--out", "ein Lauf ü", *SMALL_FIT, "--workers", "1", cwd=place, **NO_UTF8)
    config = json.loads((place / "ein Lauf ü" / "config.json").read_text())
    assert Path(config["store"]).name == STORE
    arguments = ("--baseline", "box", "--split", "all", "--stitch", "--out", "Wertung ü")
    _train("evaluate", STORE, *arguments, cwd=place, **NO_UTF8)
    assert list((place / "Wertung ü").rglob(f"{NAME}*.png"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name themselves")
def test_name_that_is_not_utf8_is_an_error_of_one_line(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "die Daten", tmp_path / "source")
    (tmp_path / "source" / "masks" / os.fsdecode(b"a\xff.png")).touch()
    ran = _run(sys.executable, "-m", "prep.cli", "build", "source", "--out", "s.zarr", cwd=tmp_path)
    assert ran.returncode == 1
    assert "has a name that is not UTF-8, but names in the store are; rename it" in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_home_that_cannot_be_written_gives_no_message(place: Path) -> None:
    # Not even root can make a folder in /proc.
    nowhere = {"HOME": "/proc/nowhere", "XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None, "MPLCONFIGDIR": None}
    _prep("view", STORE, "--out", "Ansicht", "--limit", "2", cwd=place, **nowhere)
    ran = _train("fit", STORE, "--out", "heimatlos", *SMALL_FIT, "--workers", "0", "--log-json", cwd=place, **nowhere)
    said = [json.loads(line)["message"] for line in ran.stderr.splitlines()]
    assert [line.split()[0:2] for line in said if "validation" not in line] == [["training", "starts"]]


def _with_shared_memory(options: str, *command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with its own `/dev/shm`, in its own mount namespace."""
    mount = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    return _run("unshare", "--mount", "sh", "-c", mount, "sh", *command, cwd=cwd)


@pytest.fixture(scope="module")
def may_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip the test if `/dev/shm` cannot be replaced."""
    if shutil.which("unshare") is None:
        pytest.skip("the unshare program, which gives a process its own /dev/shm, is not installed")
    if _with_shared_memory("size=1m", "true", cwd=tmp_path_factory.mktemp("probe")).returncode:
        pytest.skip("this user may not mount a /dev/shm of its own")


@pytest.mark.slow
@pytest.mark.usefixtures("may_mount")
def test_little_shared_memory_is_enough_or_an_error(place: Path) -> None:
    fit = (sys.executable, "-m", "train.cli", "fit", STORE, "--max-steps", "1", "--device", "cpu", "--no-report")
    # A batch takes 7 MB. An error while it moves to shared memory must be seen; otherwise training waits forever.
    large = ("--model", "nano", "--image-size", "512", "--batch-size", "4", "--workers", "1", "--out", "eng")
    ran = _with_shared_memory("size=1m", *fit, *large, cwd=place)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert "at the tiles [" in last
    assert "shared memory (/dev/shm): has no room for a batch of" in last
    assert "--workers 0" in last
    # Docker gives a container 64 MB by default.
    ran = _with_shared_memory("size=64m", *fit, *SMALL_FIT, "--workers", "2", "--out", "docker", cwd=place)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.usefixtures("may_mount")
def test_shared_memory_that_cannot_be_written_is_an_error(place: Path) -> None:
    build = (sys.executable, "-m", "prep.cli", "build", "die Daten", *SMALL_BUILD, "--out", "nur lesen.zarr")
    ran = _with_shared_memory("ro", *build, cwd=place)
    assert ran.returncode == 1
    assert "--workers 2: cannot start processes" in ran.stderr.splitlines()[-1]
    assert "make /dev/shm writable, or use --workers 1" in ran.stderr.splitlines()[-1]


_LOADERS = """
import sys
import numpy as np, torch
from torch.utils.data import DataLoader
from train.data.collate import collate
from train.data.dataset import SampleOptions, TileDataset
from train.data.sampler import EpochSampler

def batches(store, method):
    dataset = TileDataset(store, SampleOptions(image_size=128, prompt="mixed", seed=3))
    # Read from the store before the processes start, so that a fork copies a store in use.
    len(dataset.store), dataset.store[0]
    sampler = EpochSampler(np.arange(18), 4, seed=3)
    workers = {"num_workers": 2, "multiprocessing_context": method} if method else {}
    return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, **workers))

if __name__ == "__main__":
    wanted = batches(sys.argv[1], None)
    for method in ("fork", "forkserver", "spawn"):
        for one, other in zip(wanted, batches(sys.argv[1], method), strict=True):
            assert torch.equal(one.images, other.images), method
            assert torch.equal(one.masks, other.masks), method
            assert torch.equal(one.point_coords, other.point_coords), method
        print(method)
"""


@pytest.mark.slow
def test_all_process_start_methods_load_the_same_batches(place: Path, tmp_path: Path) -> None:
    (tmp_path / "loaders.py").write_text(_LOADERS, encoding="utf-8")
    ran = _run(sys.executable, tmp_path / "loaders.py", place / STORE, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["fork", "forkserver", "spawn"]
