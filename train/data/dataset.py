"""A map-style dataset over a store: it returns one sample for each request.

The seed, the epoch and the tile determine every random number of a sample. The same request therefore always gives the
same sample, whatever the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from schemas.store.store import Store, open_store
from train.choices import BalanceChoice, PromptChoice, prompt_kinds
from train.data.training_clicks import DRAWS_PER_CLICK, with_random_prompts
from train.transforms.augment import AugmentConfig, augment_geometry
from train.transforms.color import DRAWS as COLOR_DRAWS
from train.transforms.geometry import resize
from train.transforms.sample import Sample, read_sample


@dataclass(frozen=True)
class SampleRequest:
    """A request for the sample of one tile in one epoch.

    Attributes:
        tile_index: Index of the tile in the store.
        epoch: Number of the epoch, from 0.
        empty: Whether to leave out the tile's objects. A process without a tile in the last batch of an epoch loads
            such a sample, so that it still takes part in the step.
    """

    tile_index: int
    epoch: int
    empty: bool = False


@dataclass(frozen=True)
class SampleOptions:
    """Options that determine how a tile becomes a sample.

    Attributes:
        image_size: Side of the model's input in pixels.
        prompt: The kind of prompt.
        negatives: Whether to append negative points to each prompt.
        corrections: Number of correction clicks per object that need random numbers.
        max_objects: Largest number of objects per image.
        balance: Whether to draw all objects equally often ("none") or all classes equally often ("classes").
        augment: The random augmentation.
        seed: Seed of all random numbers.
    """

    image_size: int
    prompt: PromptChoice = "mixed"
    negatives: bool = False
    corrections: int = 0
    max_objects: int = 3
    balance: BalanceChoice = "none"
    augment: AugmentConfig = AugmentConfig()  # noqa: RUF009 - frozen
    seed: int = 0


class StoredFeatures(Protocol):
    """Encoder features that are kept beside the store and replace the images."""

    def read(self, tile: int, view: int) -> tuple[Tensor, ...]:
        """Read the features of a tile in one of its orientations: one tensor for each level."""
        ...


class TileDataset(Dataset[Sample]):
    """A dataset with one sample per request, read from the tiles of a store.

    Args:
        store_path: Path of the store; each worker process opens the store itself.
        options: Options that determine how a tile becomes a sample.
        features: Stored encoder features to read instead of the images, or None to read the images.
    """

    def __init__(self, store_path: str, options: SampleOptions, features: StoredFeatures | None = None) -> None:
        self.store: Store = open_store(store_path)
        self.options = options
        self.features = features

    def check(self) -> None:
        """Read the prompts of the first tile, so that a missing prompt kind is an error before the workers start.

        Raises:
            StoreError: The store has no prompts of this kind, or no negative points.
        """
        for kind in prompt_kinds(self.options.prompt):
            self.store.prompts(0, kind, negatives=self.options.negatives)

    def __getitem__(self, request: SampleRequest) -> Sample:
        options = self.options
        generator = np.random.default_rng([options.seed, request.epoch, request.tile_index])
        # Draw every number in a fixed order, even if it is not used. An option that is turned off then does not change
        # the other random choices.
        kinds = prompt_kinds(options.prompt)
        kind = kinds[generator.integers(len(kinds))]
        torch_generator = torch.Generator().manual_seed(int(generator.integers(1 << 62)))
        color_draws = torch.from_numpy(generator.random(COLOR_DRAWS, np.float32))
        tile = self.store.tile(request.tile_index)
        chosen = self._chosen(tile.classes, generator)
        prompts = tile.prompts(kind, chosen, negatives=options.negatives)
        draws = torch.from_numpy(generator.random((len(chosen), DRAWS_PER_CLICK * options.corrections), np.float32))
        sample = read_sample(tile, prompts, image=self.features is None)
        sample = sample.with_draws(draws, color_draws)
        if request.empty:
            sample = sample.without_objects()
        sample = augment_geometry(sample, options.augment, torch_generator)
        sample = resize(sample, options.image_size, options.image_size)
        if self.features is not None:
            sample = replace(sample, features=self.features.read(request.tile_index, sample.view))
        return with_random_prompts(sample, torch_generator) if options.prompt == "random" else sample

    def _chosen(self, classes: dict[int, int], generator: np.random.Generator) -> set[int]:
        """Draw the ids of the objects to train on from `classes`, which maps each object id to its class id."""
        if len(classes) <= self.options.max_objects:
            return set(classes)
        weights = None
        if self.options.balance == "classes":
            weights = np.array([self.class_weights[code] for code in classes.values()])
            weights /= weights.sum()
        return set(generator.choice(list(classes), self.options.max_objects, replace=False, p=weights).tolist())

    @cached_property
    def class_weights(self) -> dict[int, float]:
        """The weight of each class id when objects are drawn: 1 / number of its objects in the training split."""
        is_train = self.store.column("tiles/split")[self.store.column("objects/tile_index")] == "train"
        codes, counts = np.unique(self.store.column("objects/class_id")[is_train], return_counts=True)
        return {int(code): 1.0 / int(count) for code, count in zip(codes, counts, strict=True)}
