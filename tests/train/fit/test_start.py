"""What a run imports before its first step, and which folders it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from schemas.store.store import Store
from train.fit.finish import check_replaces_only_own

NOT_NEEDED = ("matplotlib", "scipy", "jinja2", "torchvision", "sam2.sam2_image_predictor", "sam2.sam2_video_predictor")
SCRIPT = f"""
import os, sys
from pathlib import Path

from schemas.store.store import open_store
from train.command import fit as command
from train.config import FitConfig
from train.fit.trainer import fit


def at_first_step(record, total):
    print(record.step, [name for name in {NOT_NEEDED} if name in sys.modules], flush=True)
    os._exit(0)


if __name__ == "__main__":
    config = FitConfig(model="nano", image_size=128, batch_size=1, workers=0, device="cpu")
    fit(open_store(sys.argv[1]), config, Path(sys.argv[2]), on_step=at_first_step)
"""


def test_the_first_step_waits_only_for_modules_that_it_needs(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, store.path, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "1 []\n", done.stderr


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json", "report.html"])
def test_a_run_replaces_no_file_of_others(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=f"{name}: is in the way, and no earlier run wrote it"):
        check_replaces_only_own(tmp_path)
    # A run that was killed before its first checkpoint may be started again.
    (tmp_path / "config.json").write_text('{"store_fingerprint": "x"}')
    check_replaces_only_own(tmp_path)
