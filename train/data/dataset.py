"""A map-style dataset over a store: a request in, a sample out, the same for the same request.

All randomness of a sample is keyed by (seed, epoch, tile), so neither workers nor their number change the data.
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
    """Which tile, in which epoch.

    Attributes:
        tile_index: The tile.
        epoch: From 0.
        empty: Whether its objects are left out: a process without a tile in a batch still takes part in it.
    """

    tile_index: int
    epoch: int
    empty: bool = False


@dataclass(frozen=True)
class SampleOptions:
    """How a tile becomes a sample.

    Attributes:
        image_size: Side of the model's input in pixels.
        prompt: Which prompt.
        negatives: Whether negative points are appended.
        corrections: How many correction clicks draws are needed for.
        max_objects: At most so many objects an image.
        balance: Whether objects are drawn evenly, or so that classes come equally often.
        augment: What is drawn.
        seed: Of all draws.
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
    """Features that are kept beside the store, and read instead of images."""

    def read(self, tile: int, view: int) -> tuple[Tensor, ...]:
        """Read the features of a tile in one of its orientations, a tensor for each level."""
        ...


class TileDataset(Dataset[Sample]):
    """Samples of a store's tiles.

    Args:
        store_path: The store; each worker process opens it for itself.
        options: How a tile becomes a sample.
        features: What is read instead of images.
    """

    def __init__(self, store_path: str, options: SampleOptions, features: StoredFeatures | None = None) -> None:
        self.store: Store = open_store(store_path)
        self.options = options
        self.features = features

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
        """Ids of the objects that are trained on this time, out of `{object_id: class_id}`."""
        if len(classes) <= self.options.max_objects:
            return set(classes)
        weights = None
        if self.options.balance == "classes":
            weights = np.array([self.class_weights[code] for code in classes.values()])
            weights /= weights.sum()
        return set(generator.choice(list(classes), self.options.max_objects, replace=False, p=weights).tolist())

    @cached_property
    def class_weights(self) -> dict[int, float]:
        """The rarer a class among the training objects, the more often its objects are drawn."""
        of_train = self.store.column("tiles/split")[self.store.column("objects/tile_index")] == "train"
        codes, counts = np.unique(self.store.column("objects/class_id")[of_train], return_counts=True)
        return {int(code): 1.0 / int(count) for code, count in zip(codes, counts, strict=True)}
