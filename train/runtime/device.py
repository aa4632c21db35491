"""Choose the device that a run computes on, and report its errors and its peak memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from schemas.errors import ConfigError, TrainingError
from train.choices import DeviceChoice

if TYPE_CHECKING:
    from train.config import FitConfig


def pick_device(choice: DeviceChoice) -> torch.device:
    """Return the device for a choice; `auto` is CUDA if it is available, else the CPU.

    Raises:
        ConfigError: CUDA was chosen, but is not available.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda", "finds no CUDA device", "use --device cpu, or install a driver")
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice)


def autocast(device: torch.device) -> torch.autocast:
    """Return an autocast context: bfloat16 on CUDA, full precision on other devices."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


@contextmanager
def out_of_memory_as_error(config: FitConfig) -> Generator[None]:
    """Turn torch's error about full GPU memory into one that names the settings to lower.

    Raises:
        TrainingError: The GPU's memory is full.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            f"batch of {config.batch_size} images of {config.image_size} px with up to {config.max_objects} objects",
            "does not fit the device's memory",
            "lower --batch-size (and raise --accumulate), --max-objects or --image-size, or --freeze image_encoder",
        ) from error


@contextmanager
def failed_compilation_as_error(config: FitConfig) -> Generator[None]:
    """Turn the error of torch's compiler, such as a missing C++ compiler, into one line.

    Raises:
        TrainingError: The model cannot be compiled.
    """
    if not config.compile:
        yield
        return
    # Importing the compiler takes seconds, and only compiled runs need it.
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        first = str(error).strip().splitlines()[0]
        remedy = "install a C++ compiler such as g++ (on a GPU also Triton), or leave out --compile"
        raise TrainingError("--compile", f"fails ({first})", remedy) from error


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: GPU memory on CUDA, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024
