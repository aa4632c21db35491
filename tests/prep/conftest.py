"""Fixtures of preparation tests: a folder of sequences, a store of them, and the command that builds one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prep.build import build_store
from prep.cli import main
from prep.config import BuildConfig
from schemas.store.store import Store, open_store
from tests.sequences import some_masks, write_sequences

Build = Callable[..., int]
"""Runs `bcss-prep build` on a source, with an output and more flags, and returns the exit code."""


@pytest.fixture(scope="session")
def sequence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sequences of `some_masks` as folders. Tests share it and must not change it."""
    return write_sequences(tmp_path_factory.mktemp("sequences"), some_masks())


@pytest.fixture(scope="session")
def tiled(sequence_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The sequences in tiles of 64 px: four windows per frame. Tests share it and must not change it."""
    path = tmp_path_factory.mktemp("tiled") / "tiled.zarr"
    build_store(sequence_folder, path, BuildConfig(size_px=64, sequences=True))
    return open_store(path)


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Build:
    """The command, with tiles of 64 px and in this process."""

    def run(source: Path, out: Path, *flags: str) -> int:
        command = ["bcss-prep", "build", str(source), "--out", str(out), "--size", "64", "--workers", "1", *flags]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code if isinstance(stop.value.code, int) else 0

    return run
