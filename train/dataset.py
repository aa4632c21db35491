"""A map-style dataset over a store: a request in, a sample out, the same for the same request.

All randomness of a sample is keyed by (seed, epoch, tile), so neither workers nor their number change the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from schemas.prompts import PromptKind
from schemas.store import Store, open_store
from train.sample import Sample, make_sample
from train.transforms import random_orientation, resize

PromptChoice = Literal["centroid", "multi_point", "box", "mixed"]

MIXED_KINDS: tuple[PromptKind, ...] = ("box", "centroid")
"""What `mixed` draws from, evenly, one draw an image."""


@dataclass(frozen=True)
class SampleRequest:
    """Which tile, in which epoch."""

    tile_index: int
    epoch: int


@dataclass(frozen=True)
class SampleOptions:
    """How a tile becomes a sample.

    Attributes:
        image_size: Side of the model's input in pixels.
        prompt: Which prompt.
        negatives: Whether negative points are appended.
        max_objects: At most so many objects an image, drawn evenly.
        augment: Whether flips and quarter turns are drawn.
        seed: Of all draws.
    """

    image_size: int
    prompt: PromptChoice
    negatives: bool
    max_objects: int
    augment: bool
    seed: int


class TileDataset(Dataset[Sample]):
    """Samples of a store's tiles.

    Args:
        store_path: The store; each worker process opens it for itself.
        options: How a tile becomes a sample.
    """

    def __init__(self, store_path: str, options: SampleOptions) -> None:
        self.store: Store = open_store(store_path)
        self.options = options

    def __getitem__(self, request: SampleRequest) -> Sample:
        options = self.options
        generator = np.random.default_rng([options.seed, request.epoch, request.tile_index])
        # Drawn in a fixed order and always, so that switching one choice off does not shift the others.
        kind = MIXED_KINDS[generator.integers(len(MIXED_KINDS))] if options.prompt == "mixed" else options.prompt
        torch_generator = torch.Generator().manual_seed(int(generator.integers(1 << 62)))
        record = self.store[request.tile_index]
        rows = np.arange(len(record.object_ids))
        if len(rows) > options.max_objects:
            rows = np.sort(generator.choice(rows, options.max_objects, replace=False))
        prompts = self.store.prompts(request.tile_index, kind, negatives=options.negatives)
        sample = make_sample(record, prompts, rows)
        if options.augment:
            sample = random_orientation(sample, torch_generator)
        return resize(sample, options.image_size, options.image_size)
