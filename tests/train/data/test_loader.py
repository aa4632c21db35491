import subprocess
import sys
from dataclasses import fields

import pytest

from schemas.errors import TrainingError
from train.config import FitConfig
from train.data.dataset import SampleOptions
from train.data.loader import sample_options
from train.runtime.loading_process import deaths_as_errors

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


def test_death_of_a_loading_process_is_one_line_wherever_it_is_told() -> None:
    """Torch's handler of signals raises it at any line of the training."""
    with (
        pytest.raises(
            TrainingError, match=r"a loading process: failed .*Killed.*; try fewer --workers, or 0, and resume"
        ),
        deaths_as_errors("resume"),
    ):
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")
    with pytest.raises(RuntimeError, match="CUDA"), deaths_as_errors("resume"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


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
