"""A map-style dataset over a store: it returns one sample for each request.

The seed and the request, which has the epoch and the tile, determine every random number of a sample. The same request
therefore always gives the same sample, whatever the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from schemas.store.store import Store, open_store
from train.choices import PromptChoice, prompt_kinds
from train.data.training_clicks import DRAWS_PER_CLICK, with_jittered_boxes, with_random_prompts
from train.data.windows import Windows, reversed_if_drawn, with_frame_draws, with_later_frames
from train.transforms.augment import AugmentConfig, augment_geometry
from train.transforms.color import DRAWS as COLOR_DRAWS
from train.transforms.geometry import resize
from train.transforms.sample import Sample, read_sample

MASK_SHARE = 0.5
"""Share of windows in which `random` gives the masks of the first frame, as in SAM 2's own training on video."""


@dataclass(frozen=True)
class SampleRequest:
    """A request for the sample of one tile in one epoch.

    Attributes:
        tile_index: Index of the tile in the store.
        epoch: Number of the epoch, from 0.
        empty: Whether to leave out the tile's objects. A process without a tile in the last batch of an epoch loads
            such a sample, so that it still takes part in the step.
        object_ids: The objects to train on; None draws them from all objects of the tile.
        repeat: How often the tile came before in this epoch. Each time it gets other random numbers.
    """

    tile_index: int
    epoch: int
    empty: bool = False
    object_ids: tuple[int, ...] | None = None
    repeat: int = 0


@dataclass(frozen=True)
class SampleOptions:
    """Options that determine how a tile becomes a sample.

    Attributes:
        image_size: Side of the model's input in pixels.
        prompt: The kind of prompt.
        negatives: Whether to append negative points to each prompt.
        corrections: Number of correction clicks per object that need random numbers.
        box_jitter: Largest random move of each side of a stored box, as a share of its length.
        max_objects: Largest number of objects per image.
        augment: The random augmentation.
        seed: Seed of all random numbers.
        reverse: Share of the windows of frames that are read backwards.
        corrected_frames: Number of frames of a window that get correction clicks.
    """

    image_size: int
    prompt: PromptChoice = "mixed"
    negatives: bool = False
    corrections: int = 0
    box_jitter: float = 0.0
    max_objects: int = 3
    augment: AugmentConfig = AugmentConfig()  # noqa: RUF009 - frozen
    seed: int = 0
    reverse: float = 0.0
    corrected_frames: int = 1


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
        windows: The windows of frames, by the tile that a request names; None reads single tiles.
    """

    def __init__(
        self,
        store_path: str,
        options: SampleOptions,
        features: StoredFeatures | None = None,
        windows: Windows | None = None,
    ) -> None:
        self.store: Store = open_store(store_path)
        self.options = options
        self.features = features
        self.windows = windows

    def check(self) -> None:
        """Read the prompts of the first tile, so that a missing prompt kind is an error before the workers start.

        Raises:
            StoreError: The store has no prompts of this kind, or no negative points.
        """
        for kind in prompt_kinds(self.options.prompt):
            self.store.prompts(0, kind, negatives=self.options.negatives)

    def __getitem__(self, request: SampleRequest) -> Sample:
        options = self.options
        key = [options.seed, request.epoch, request.tile_index]
        generator = np.random.default_rng([*key, request.repeat] if request.repeat else key)
        # Windows draw from a generator of their own, so that single tiles draw what they always did.
        of_window = np.random.default_rng([*key, request.repeat, 1])
        tiles, mask_draw = self._tiles(request.tile_index, of_window), of_window.random()
        # Draw every number in a fixed order, even if it is not used. An option that is turned off then does not change
        # the other random choices.
        kinds = prompt_kinds(options.prompt)
        kind = kinds[generator.integers(len(kinds))]
        torch_generator = torch.Generator().manual_seed(int(generator.integers(1 << 62)))
        color_draws = torch.from_numpy(generator.random(COLOR_DRAWS, np.float32))
        tile = self.store.tile(tiles[0])
        chosen = self._drawn(list(tile.classes), generator) if request.object_ids is None else set(request.object_ids)
        prompts = tile.prompts(kind, chosen, negatives=options.negatives)
        shapes = [(len(chosen), DRAWS_PER_CLICK * options.corrections), (len(chosen), options.corrections)]
        draws = torch.from_numpy(np.concatenate([generator.random(shape, np.float32) for shape in shapes], 1))
        sample = read_sample(tile, prompts, image=self.features is None)
        sample = sample.with_draws(draws, color_draws)
        if len(tiles) > 1:
            sample = with_later_frames(sample, self.store, tiles[1:])
            sample = with_frame_draws(sample, options.corrected_frames, of_window)
        if request.empty:
            sample = sample.without_objects()
        sample = augment_geometry(sample, options.augment, torch_generator)
        sample = sample.moved(lambda frame: resize(frame, options.image_size, options.image_size))
        if self.features is not None:
            sample = replace(sample, features=self.features.read(request.tile_index, sample.view))
        if options.prompt == "mask" or (options.prompt == "random" and len(tiles) > 1 and mask_draw < MASK_SHARE):
            return sample.without_points()
        if options.prompt == "random":
            return with_random_prompts(sample, torch_generator)
        return with_jittered_boxes(sample, options.box_jitter, torch_generator) if options.box_jitter else sample

    def _tiles(self, start: int, generator: np.random.Generator) -> list[int]:
        """Return the tiles of a window in the order in which they are read, or the tile alone without windows."""
        if self.windows is None:
            return [start]
        return reversed_if_drawn(self.store, self.windows.of(start), self.options.reverse, generator.random())

    def _drawn(self, object_ids: list[int], generator: np.random.Generator) -> set[int]:
        """Draw the objects to train on, all alike."""
        if len(object_ids) <= self.options.max_objects:
            return set(object_ids)
        return set(generator.choice(object_ids, self.options.max_objects, replace=False).tolist())
