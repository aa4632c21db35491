"""Make the dataset and the loader of training batches."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from schemas.store.store import Store
from train.config import FitConfig
from train.data.collate import collate
from train.data.dataset import SampleOptions, TileDataset
from train.data.sampler import EpochSampler
from train.data.windows import Windows
from train.runtime.loading_process import start_worker


def training_dataset(store: Store, config: FitConfig, windows: Windows | None = None) -> TileDataset:
    """Make the dataset of a run and check that the store has the prompts that it needs.

    Args:
        store: The store.
        config: The configuration of the run.
        windows: The windows of frames that the run trains on, or None for single images.

    Returns:
        The dataset.

    Raises:
        StoreError: The store lacks the prompts that the run asks for.
    """
    dataset = TileDataset(store.path, sample_options(config), windows=windows)
    dataset.check()
    return dataset


def training_loader(
    dataset: TileDataset, config: FitConfig, sampler: EpochSampler, device: torch.device
) -> DataLoader[Any]:
    """Make the loader that returns batches of training samples in the sampler's order.

    Args:
        dataset: The samples.
        config: The configuration of the run.
        sampler: The order of the samples.
        device: The device that trains; batches for CUDA are pinned.

    Returns:
        A DataLoader of `Batch`.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=config.workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        # Workers are kept for all epochs. They are spawned, because a fork copies the locks that the threads of the
        # parent hold at that moment.
        persistent_workers=config.workers > 0,
        multiprocessing_context="spawn" if config.workers else None,
        worker_init_fn=start_worker,
    )


def sample_options(config: FitConfig) -> SampleOptions:
    """Return the sample options of a run."""
    return SampleOptions(
        image_size=config.image_size,
        prompt=config.prompt,
        negatives=config.negatives,
        corrections=config.corrections,
        box_jitter=config.box_jitter,
        max_objects=config.max_objects,
        augment=config.augment,
        seed=config.seed,
        reverse=config.reverse,
        corrected_frames=config.corrected_frames,
    )
