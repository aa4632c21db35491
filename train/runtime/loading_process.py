"""Start and set up the processes that load data, and report their failures."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numcodecs.blosc
import torch
from torch.utils.data import DataLoader

from schemas.errors import TrainingError
from schemas.script_guard import GUARD_REMEDY, is_script

KEPT_BYTES = 128 << 20
"""Bytes of freed memory that a loading process keeps; about the size of one batch of tiles."""

# Parameter numbers from glibc's malloc.h; Python has no names for them.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20


def loading_error(where: str, error: RuntimeError, then: str) -> TrainingError:
    """Turn the error of a loading process into a message of one line.

    A process that fails sends its traceback as text; the last line of that text has the cause and its remedy. If a
    process is killed, the error is a sentence from torch.

    Args:
        where: The tiles that the process loaded.
        error: The error that the loader raised.
        then: What the user should do after fixing the cause.

    Returns:
        The error to raise.
    """
    found = _in_one_line(where, error, then)
    # A traceback shows this text below the message.
    found.add_note(str(error))
    return found


def _in_one_line(where: str, error: RuntimeError, then: str) -> TrainingError:
    last = str(error).strip().splitlines()[-1]
    if "Traceback (most recent call last)" in str(error):
        return TrainingError(where, re.sub(r"^schemas\.errors\.\w+: ", "", last), f"fix that, and {then}")
    if is_script() and "exited unexpectedly" in last:
        remedy = f"{GUARD_REMEDY}, if it has none; else try fewer workers, or 0"
        return TrainingError(where, f"failed ({last})", remedy)
    return TrainingError(where, f"failed ({last})", f"try fewer --workers, or 0, and {then}")


def start_loading(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the loading processes of a loader, so that only the next item reports the death of one.

    If the main thread starts them, torch handles the signal that tells of a death: it raises its error at whatever line
    the main thread runs. If that line takes a lock, the lock is never released, and the training hangs. Torch sets no
    such handler in another thread. It also looks for dead processes while it waits for an item, every five seconds.

    Args:
        loader: The loader.

    Returns:
        The iterator of the loader.

    Raises:
        OSError: The processes cannot be started.
    """
    # Each thread has its own GPU. The one of this thread is where torch pins memory.
    gpu = torch.cuda.current_device() if loader.pin_memory else None

    def start() -> Iterator[Any]:
        if gpu is not None:
            torch.cuda.set_device(gpu)
        return iter(loader)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(start).result()


def prepare_process(_worker: int = 0) -> None:
    """Set up a loading process: limit it to one thread and let it keep freed memory.

    The loading processes share the cores, so each of them uses one thread. The arrays of a tile are larger than the
    memory that glibc keeps by default. Glibc returns them to the system at once and gets empty pages for the next
    tile, which takes half of a sample's time (benchmarks/results.md). Memory that is kept is used again. With another C
    library the memory settings stay as they are.
    """
    cv2.setNumThreads(1)
    numcodecs.blosc.use_threads = False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for parameter in (_TRIM_THRESHOLD, _TOP_PAD):
            mallopt(parameter, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)


def start_worker(worker: int) -> None:
    """Set up a loading process and move it out of its parent's process group.

    Ctrl-C in a terminal and SIGTERM from a scheduler go to the whole group. The training process still finishes its
    step then, and needs its loading processes for that. The parent can still end them with SIGTERM.
    """
    prepare_process(worker)
    os.setpgrp()
