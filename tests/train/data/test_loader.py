import signal
import subprocess
import sys
import time
from dataclasses import fields
from multiprocessing import active_children

import pytest
from torch.utils.data import DataLoader, Dataset

from train.config import FitConfig
from train.data.dataset import SampleOptions
from train.data.loader import sample_options
from train.runtime.loading_process import start_loading

# Arrays as large as those of a tile, made and freed as a loading process does.
_FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "prepared":
    from train.runtime.loading_process import prepare_process
    prepare_process()
def work():
    for side in (3, 1, 3, 12):
        np.ones((side, 1024, 1024), np.uint8)
    kept = [np.ones((3, 1024, 1024), np.uint8) for _ in range(12)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is of glibc")
def test_a_loading_process_keeps_the_pages_that_a_tile_frees() -> None:
    faults = {
        way: int(subprocess.run([sys.executable, "-c", _FAULTS, way], capture_output=True, check=True).stdout)
        for way in ("plain", "prepared")
    }
    assert faults["plain"] > 2000
    assert faults["prepared"] < faults["plain"] / 10


class _Slow(Dataset[int]):
    """Numbers, of which only the first comes at once."""

    def __getitem__(self, index: int) -> int:
        time.sleep(60 if index else 0)
        return index

    def __len__(self) -> int:
        return 2


def test_death_of_a_loading_process_is_told_only_by_the_next_item() -> None:
    """Torch's handler of the signal would raise at any line, also at one that has just taken a lock."""
    others, before = set(active_children()), signal.getsignal(signal.SIGCHLD)
    loader = DataLoader(_Slow(), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    items = start_loading(loader)
    assert next(items) == 0
    (process,) = set(active_children()) - others
    process.kill()
    process.join()
    time.sleep(0.1)
    assert signal.getsignal(signal.SIGCHLD) is before
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* exited unexpectedly"):
        next(items)


def test_samples_are_made_as_the_run_says() -> None:
    values = {
        "image_size": 256,
        "prompt": "box",
        "negatives": True,
        "corrections": 2,
        "box_jitter": 0.1,
        "max_objects": 5,
        "seed": 7,
        "frames": 4,
        "reverse": 0.5,
        "corrected_frames": 2,
    }
    config = FitConfig.model_validate({**values, "augment": {"brightness": 0.2}})
    options, plain = sample_options(config), SampleOptions(1024)
    for field in fields(SampleOptions):
        assert getattr(options, field.name) == getattr(config, field.name), field.name
        assert getattr(options, field.name) != getattr(plain, field.name), field.name
