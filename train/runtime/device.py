"""Choose the device that a run computes on, and report its errors and its peak memory."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
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


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


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


def memory_bytes(device: torch.device) -> int:
    """Return the memory that this process can use in bytes: free and own GPU memory on CUDA, else that of the machine.

    A limit that Linux sets for a container counts, too.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [path.read_text().strip() for path in _CGROUP_LIMITS if path.is_file()]
    return min([installed, *(int(limit) for limit in limits if limit.isdigit())])


_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_bytes` measure from now on. On a CPU only Linux can do this; elsewhere the old peak stays."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        # See proc(5): 5 resets the peak resident set size to the current one.
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: GPU memory on CUDA, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024
