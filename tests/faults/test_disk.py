"""Test full, read-only and failing disks: one line reports the fault, and the next run ends with the same bytes."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore, WrapperStore

from prep.files import sha256_of
from schemas.errors import StoreError
from schemas.store import store as store_module
from schemas.store.store import Store, open_store
from tests.faults.commands import assert_same_weights, build_command, fit_command, one_line, run
from tests.faults.forms import forms
from tests.folders import bytes_of

FAILING = "/proc/self/mem"
"""A file that the kernel refuses to read, with an input/output error, both from its start and from its end."""


class Disk:
    """A file system in memory whose size and mode can be changed while it is in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remount(self, options: str) -> None:
        """Change its mount options, such as `size=1m` or `ro`."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True, capture_output=True)


@pytest.fixture
def disk() -> Generator[Disk]:
    # If a run is killed, its disk stays mounted. pytest, which removes old folders, would then fail in the next run.
    with tempfile.TemporaryDirectory(prefix="bcss-disk-") as folder:
        try:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        except FileNotFoundError:
            pytest.skip("the program mount is not installed")
        if done.returncode:
            pytest.skip("mounting a file system needs more rights than this user has")
        yield Disk(Path(folder))
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_build_on_a_full_disk(sample_source: Path, store: Store, disk: Disk, tally) -> None:
    command = build_command(sample_source, disk.folder / "s.zarr", "--workers", "1")
    failed = 0
    for size in ("64k", "512k", "1m"):
        disk.remount(f"size={size}")
        status, said = run(command)
        assert "No space left on device" in one_line(status, said)
        failed += 1
    disk.remount("size=64m")
    assert run(command)[0] == 0
    assert bytes_of(disk.folder / "s.zarr") == bytes_of(store.path)
    tally("ENOSPC in a build (tmpfs)", tried=failed, one_line=failed, other_bytes=0)


def test_build_on_a_read_only_disk(sample_source: Path, store: Store, disk: Disk, tally) -> None:
    disk.remount("size=64m,ro")
    command = build_command(sample_source, disk.folder / "s.zarr", "--workers", "1")
    assert "Read-only file system" in one_line(*run(command))
    disk.remount("rw")
    assert run(command)[0] == 0
    assert bytes_of(disk.folder / "s.zarr") == bytes_of(store.path)
    tally("read-only disk under a build", tried=1, one_line=1, other_bytes=0)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_fit_on_a_full_and_on_a_read_only_disk(store: Store, straight: Path, disk: Disk, tally) -> None:
    disk.remount("size=100m,ro")
    assert "Read-only file system" in one_line(*run(fit_command(store.path, disk.folder / "run")))
    disk.remount("rw")
    # First, no checkpoint fits. Then one checkpoint fits, but not a second one beside it.
    for size in ("100m", "260m"):
        disk.remount(f"size={size}")
        said = one_line(*run(fit_command(store.path, disk.folder / "run", "--resume")))
        assert "checkpoint.pt: cannot be written" in said
        assert "free space or choose another --out" in said
    disk.remount("size=2g")
    assert run(fit_command(store.path, disk.folder / "run", "--resume"))[0] == 0
    assert_same_weights(disk.folder / "run", straight)
    tally("ENOSPC and read-only disk under a fit", tried=3, one_line=3, other_weights=0)


def test_fit_on_a_disk_that_fills_between_two_checkpoints(store: Store, disk: Disk, tally) -> None:
    disk.remount("size=2m")
    # The space that is left is less than what TensorBoard's event writer writes first.
    (disk.folder / "other").write_bytes(bytes((2 << 20) - (24 << 10)))
    status, said = run(fit_command(store.path, disk.folder / "run", "--save-every-steps", "0", "--max-steps", "400"))
    assert "run: cannot be written (No space left on device); free space, and give --resume" in one_line(status, said)
    tally("ENOSPC under a fit between two checkpoints", tried=1, one_line=1)


def test_output_that_cannot_be_written_is_one_line(store: Store, tally) -> None:
    command = [sys.executable, "-m", "prep.cli", "inspect", store.path]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert "No space left on device" in one_line(done.returncode, done.stderr)
    tally("output to /dev/full", tried=1, one_line=1)


@pytest.mark.parametrize("array", ["images", "objects/class_id"])
def test_device_that_fails_under_a_store_is_one_line(store: Store, tmp_path: Path, array: str, tally) -> None:
    _needs_failing_file()
    copy = _linked(Path(store.path), tmp_path / "copy.zarr")
    chunk = next(path for path in (copy / array / "c").rglob("*") if path.is_symlink())
    chunk.unlink()
    chunk.symlink_to(FAILING)
    with pytest.raises(StoreError, match=rf"{array}.*: cannot be read \(In.*\); check the disk"):
        _ = open_store(copy)[0]
    said = one_line(*run([sys.executable, "-m", "prep.cli", "verify", str(copy)]))
    assert "cannot be read (Input/output error)" in said
    tally(f"EIO of {array}, read and verified", tried=2, one_line=2)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", ["0", "1"])
def test_device_that_fails_under_a_fit(store: Store, straight: Path, tmp_path: Path, workers: str, tally) -> None:
    _needs_failing_file()
    copy = _linked(Path(store.path), tmp_path / "copy.zarr")
    chunk = next(path for path in (copy / "segments" / "c").rglob("*") if path.is_symlink())
    whole = chunk.readlink()
    chunk.unlink()
    chunk.symlink_to(FAILING)
    said = one_line(*run(fit_command(str(copy), tmp_path / "run", "--workers", workers)))
    assert re.search(
        r"copy.zarr/segments rows? .*: cannot be read \(In.*\); check the disk, and repeat the command", said
    )
    chunk.unlink()
    chunk.symlink_to(whole)
    assert run(fit_command(str(copy), tmp_path / "run", "--resume"))[0] == 0
    assert_same_weights(tmp_path / "run", straight)
    tally(f"EIO under a fit with {workers} workers", tried=1, one_line=1, other_weights=0)


def test_source_on_a_device_that_fails_is_named(sample_source: Path, tmp_path: Path, store: Store, tally) -> None:
    _needs_failing_file()
    source = _linked(sample_source, tmp_path / "source")
    mask = sorted((source / "masks").iterdir())[3]
    whole = mask.readlink()
    mask.unlink()
    mask.symlink_to(FAILING)
    said = one_line(*run(build_command(source, tmp_path / "s.zarr", "--workers", "1")))
    assert mask.name in said
    assert "Input/output error" in said
    mask.unlink()
    mask.symlink_to(whole)
    assert run(build_command(source, tmp_path / "s.zarr", "--workers", "1"))[0] == 0
    assert bytes_of(tmp_path / "s.zarr") == bytes_of(store.path)
    tally("EIO of a source file", tried=1, one_line=1, other_bytes=0)


class _FailingStore(WrapperStore[Any]):
    """A store in which one read fails."""

    fails_at = reads = 0

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        type(self).reads += 1
        if type(self).reads == type(self).fails_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return await super().get(*args, **kwargs)


@pytest.mark.parametrize("reads", forms(12, 120))
def test_any_read_that_fails_is_an_error_and_never_other_pixels(
    store: Store, monkeypatch: pytest.MonkeyPatch, reads: int, tally
) -> None:
    monkeypatch.setattr(store_module, "zarr_location", lambda path: _FailingStore(LocalStore(path, read_only=True)))
    refused = 0
    for number in range(1, reads + 1):
        _FailingStore.fails_at, _FailingStore.reads = number, 0
        try:
            opened = open_store(store.path)
            record = opened[number % len(store)]
            opened.prompts(record.index, "multi_point", negatives=True)
        except StoreError as error:
            refused += "Input/output error" in str(error)
            continue
        assert _FailingStore.reads < number
        np.testing.assert_array_equal(record.image, store[record.index].image)
    assert refused >= 12
    assert refused == reads or reads > 12
    tally("EIO at one read of many (store wrapper)", tried=reads, one_line=refused, not_reached=reads - refused)


def _needs_failing_file() -> None:
    try:
        sha256_of(Path(FAILING))
    except OSError:
        return
    pytest.skip(f"{FAILING} can be read here")


def _linked(folder: Path, copy: Path) -> Path:
    """Copy a folder as a tree of links to its files."""
    for path in folder.rglob("*"):
        if path.is_file():
            place = copy / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
    return copy
