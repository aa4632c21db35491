"""Two runs in one folder: the second is refused, also after a kill of the first."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from schemas.errors import TrainingError
from schemas.store.store import Store
from tests.warm_start import WarmProcess
from train.config import FitConfig
from train.fit.trainer import fit
from train.runtime.folder_lock import LOCK_FILE, locked_folder

CONFIG = FitConfig(model="nano", image_size=128, workers=0, device="cpu", report=False)


def test_second_run_is_refused_while_the_first_one_lives(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--model", "nano", "--image-size", "128", "--workers", "0", "--device", "cpu", "--no-report"]
    first = WarmProcess(
        [sys.executable, "-m", "train.cli", "fit", store.path, "--out", str(out), "--epochs", "1000", *flags]
    )
    # The file exists a moment before its bytes do.
    while not (out / "config.json").exists() or not (out / "config.json").read_bytes().endswith(b"}\n}\n"):
        assert first.poll() is None
    config = (out / "config.json").read_bytes()
    for resume in (False, True):
        with pytest.raises(TrainingError, match=f"{out}: is in use by another run; wait until it ends, or choose"):
            fit(store, CONFIG, out, resume=resume)
    assert (out / "config.json").read_bytes() == config
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    with locked_folder(out):
        pass


def test_folder_of_a_run_that_wrote_nothing_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="before the first file"), locked_folder(tmp_path / "new"):
        raise ValueError("before the first file")
    assert list(tmp_path.iterdir()) == []
    with locked_folder(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [LOCK_FILE, "file"]
