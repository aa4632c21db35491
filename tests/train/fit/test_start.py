"""What a run imports before its first step."""

import subprocess
import sys
from pathlib import Path

from schemas.store.store import Store

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
