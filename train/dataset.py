"""A map-style dataset over a store: a request in, a sample out, the same for the same request.

All randomness of a sample is keyed by (seed, epoch, tile), so neither workers nor their number change the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from schemas.prompts import PromptKind
from schemas.store import Store, open_store
from train.choices import PromptChoice
from train.sample import Sample, make_sample
from train.transforms import random_orientation, resize

MIXED_KINDS: tuple[PromptKind, ...] = ("box", "centroid")
"""What `mixed` draws from, evenly, one draw an image."""


def prompt_kinds(choice: PromptChoice) -> tuple[PromptKind, ...]:
    """The kinds that a choice draws from."""
    return MIXED_KINDS if choice == "mixed" else (choice,)


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

    def check(self) -> None:
        """Ask for the first tile's prompts, so that a kind that the store lacks is refused before workers start.

        Raises:
            StoreError: The store lacks the prompt kind or negative points.
        """
        for kind in prompt_kinds(self.options.prompt):
            self.store.prompts(0, kind, negatives=self.options.negatives)

    def __getitem__(self, request: SampleRequest) -> Sample:
        options = self.options
        generator = np.random.default_rng([options.seed, request.epoch, request.tile_index])
        # Drawn in a fixed order and always, so that switching one choice off does not shift the others.
        kinds = prompt_kinds(options.prompt)
        kind = kinds[generator.integers(len(kinds))]
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
