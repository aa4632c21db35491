"""The loader of training batches and the processes that fill it."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import cv2
import numcodecs.blosc
import torch
from torch.utils.data import DataLoader

from schemas.errors import TrainingError
from schemas.store.store import Store
from train.config import FitConfig
from train.data.collate import collate
from train.data.dataset import SampleOptions, TileDataset
from train.data.sampler import EpochSampler

KEPT_BYTES = 128 << 20
"""Freed memory that a loading process keeps, about what a batch of tiles takes."""

# Names of glibc's malloc.h, which Python does not have.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20


def training_dataset(store: Store, config: FitConfig) -> TileDataset:
    """The samples of a run.

    Raises:
        StoreError: The store lacks the prompts that the run asks for.
    """
    dataset = TileDataset(store.path, sample_options(config))
    dataset.check()
    return dataset


def training_loader(
    dataset: TileDataset, config: FitConfig, sampler: EpochSampler, device: torch.device
) -> DataLoader[Any]:
    """Load batches of training samples in the sampler's order."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=config.workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        # Workers live through all epochs and are spawned: a fork copies whatever locks the parent's threads hold.
        persistent_workers=config.workers > 0,
        multiprocessing_context="spawn" if config.workers else None,
        worker_init_fn=_start_worker,
    )


def sample_options(config: FitConfig) -> SampleOptions:
    """What a run asks of its samples."""
    return SampleOptions(
        image_size=config.image_size,
        prompt=config.prompt,
        negatives=config.negatives,
        corrections=config.corrections,
        max_objects=config.max_objects,
        balance=config.balance,
        augment=config.augment,
        seed=config.seed,
    )


def loading_error(where: str, error: RuntimeError, then: str) -> TrainingError:
    """Say in one line what ended a loading process.

    A process that fails sends its traceback as text, whose last line is the cause with its own remedy; one that is
    killed leaves a sentence of torch's.

    Args:
        where: The tiles that it loaded.
        error: What the loader raised.
        then: What to do after that is mended.
    """
    last = str(error).strip().splitlines()[-1]
    if "Traceback (most recent call last)" in str(error):
        return TrainingError(where, re.sub(r"^schemas\.errors\.\w+: ", "", last), f"mend that, and {then}")
    return TrainingError(where, f"failed ({last})", f"try fewer --workers, or 0, and {then}")


@contextmanager
def deaths_as_errors(then: str) -> Generator[None]:
    """Say in one line that a loading process was killed, of which torch tells wherever its parent is just then.

    Args:
        then: What to do after that is mended.

    Raises:
        TrainingError: One was.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise loading_error("a loading process", error, then) from error


def prepare_process(_worker: int = 0) -> None:
    """Set a loading process up: one thread, since processes share the cores, and memory that is kept.

    A tile's arrays are larger than what the C library keeps by default. It returns them to the system at once and gets
    empty pages for the next tile, which takes half of a sample's time (benchmarks/results.md); kept, they are used
    again. Where the C library is not glibc nothing is set.
    """
    cv2.setNumThreads(1)
    numcodecs.blosc.use_threads = False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for parameter in (_TRIM_THRESHOLD, _TOP_PAD):
            mallopt(parameter, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)


def _start_worker(worker: int) -> None:
    """Set a loading process up, and take it out of its parent's process group.

    A terminal's Ctrl-C and a scheduler's SIGTERM go to the whole group, and the step that the training process still
    finishes needs its loaders. The parent's own SIGTERM, by which it ends them, arrives as before.
    """
    prepare_process(worker)
    os.setpgrp()
