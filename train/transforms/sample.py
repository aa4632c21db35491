"""A training sample: one tile, or a window of frames, with some of its objects and one prompt per object.

Axes: O objects, K points (of the longest prompt in the sample), H and W pixels. Coordinates are x, y of pixel centers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from schemas.points import Prompt
from schemas.prompt_kinds import PointLabel
from schemas.store.tile import Tile


@dataclass(frozen=True)
class Sample:
    """A tile, its chosen objects and their prompts; every transform takes a sample and returns a new one.

    Attributes:
        tile_index: Index of the tile in the store.
        image: The RGB image, uint8 (3, H, W); in memory the channels may be last.
        segments: The segment of each object, bool (O, H, W).
        ignore: The pixels that no loss term includes, bool (H, W).
        point_coords: The points of each prompt, float32 (O, K, 2) as x, y; (0, 0) where padded.
        point_labels: SAM 2's label of each point, int32 (O, K); -1 is padding.
        object_ids: Id of each object, unique in the tile, int64 (O,).
        class_ids: The mask value of each object's class, int64 (O,).
        dropped: Number of chosen objects that lost all their pixels in a transform.
        skipped: Number of random maps that were skipped because they would have lost an object.
        click_draws: Random numbers in [0, 1) for correction clicks, float32 (O, D), or None.
        color_draws: Random numbers in [0, 1) for color augmentation, float32 (C,), or None.
        view: Index of the orientation that the sample is in, 0 to 7; see `train.transforms.orientation`.
        features: Stored encoder features, or None: one tensor per level, each bfloat16 (side, side, channels). They
            replace the image, which then has no channels.
        later: The later frames of a window, each a sample with the same objects but without prompts.
        may_hide: Whether objects may have no pixel, as in a later frame; then no object is dropped.
        corrected: Numbers of the frames that get correction clicks.
    """

    tile_index: int
    image: Tensor
    segments: Tensor
    ignore: Tensor
    point_coords: Tensor
    point_labels: Tensor
    object_ids: Tensor
    class_ids: Tensor
    dropped: int = 0
    skipped: int = 0
    click_draws: Tensor | None = None
    color_draws: Tensor | None = None
    view: int = 0
    features: tuple[Tensor, ...] | None = None
    later: tuple[Sample, ...] = ()
    may_hide: bool = False
    corrected: tuple[int, ...] = (0,)

    @property
    def frames(self) -> tuple[Sample, ...]:
        """All frames of the sample, this one first."""
        return (self, *self.later)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        return self.image.shape[-1], self.image.shape[-2]

    def keep(self, objects: Tensor) -> Sample:
        """Keep the objects that a boolean tensor (O,) selects; the other objects count as dropped."""
        return replace(
            self,
            segments=self.segments[objects],
            point_coords=self.point_coords[objects],
            point_labels=self.point_labels[objects],
            object_ids=self.object_ids[objects],
            class_ids=self.class_ids[objects],
            dropped=self.dropped + int((~objects).sum()),
            click_draws=None if self.click_draws is None else self.click_draws[objects],
            later=tuple(frame.keep(objects) for frame in self.later),
        )

    def without_lost(self) -> Sample:
        """Drop the objects that have no pixel left; in a later frame they are hidden, and stay."""
        return self if self.may_hide else self.keep(self.segments.flatten(1).any(1))

    def moved(self, move: Callable[[Sample], Sample]) -> Sample:
        """Apply one move of pixels and prompts to all frames; what the first frame loses is dropped from all."""
        first = move(self)
        return replace(first, later=tuple(move(frame) for frame in first.later))

    def without_objects(self) -> Sample:
        """Remove all objects without counting them as dropped."""
        return replace(self.keep(torch.zeros(len(self.object_ids), dtype=torch.bool)), dropped=self.dropped)

    def with_draws(self, click_draws: Tensor, color_draws: Tensor) -> Sample:
        """Attach the random numbers for clicks, float32 (O, D), and for colors, float32 (C,)."""
        return replace(self, click_draws=click_draws, color_draws=color_draws)

    def with_prompts(self, coords: Tensor, labels: Tensor) -> Sample:
        """Replace the prompts by point_coords float32 (O, K, 2) and point_labels int32 (O, K)."""
        return replace(self, point_coords=coords, point_labels=labels)

    def without_points(self) -> Sample:
        """Remove all points: in a window, the masks of the first frame are the prompts then."""
        return self.with_prompts(self.point_coords[:, :0], self.point_labels[:, :0])


def read_sample(tile: Tile, prompts: dict[int, Prompt], *, image: bool = True) -> Sample:
    """Read a tile and the objects that have a prompt in `prompts`; the other objects are not read.

    Args:
        tile: The tile.
        prompts: The prompt of each object by object id, in the order that the objects have in the tile.
        image: Whether to read the image; if not, the sample gets an image of the right size without channels.

    Returns:
        The sample, in the orientation and the size of the store.
    """
    height, width = tile.ignore.shape
    pixels = tile.image if image else np.empty((height, width, 0), np.uint8)
    coords, labels = pad_prompts(list(prompts.values()))
    return Sample(
        tile_index=tile.index,
        # Permuting makes a view: the channels stay last in memory, as in the store. OpenCV turns images in this order
        # fastest, and a GPU convolves them fastest.
        image=torch.from_numpy(pixels).permute(2, 0, 1),
        segments=torch.from_numpy(tile.segments(prompts)),
        ignore=torch.from_numpy(tile.ignore),
        point_coords=coords,
        point_labels=labels,
        object_ids=torch.tensor(list(prompts), dtype=torch.int64),
        class_ids=torch.tensor([tile.classes[object_id] for object_id in prompts], dtype=torch.int64),
    )


def pad_prompts(prompts: list[Prompt]) -> tuple[Tensor, Tensor]:
    """Pad prompts to the length of the longest one.

    Args:
        prompts: The prompts of O objects, each with its own number of points.

    Returns:
        point_coords float32 (O, K, 2) and point_labels int32 (O, K), padded with (0, 0) and -1.
    """
    longest = max((len(prompt["point_labels"]) for prompt in prompts), default=0)
    coords = torch.zeros(len(prompts), longest, 2)
    labels = torch.full((len(prompts), longest), int(PointLabel.PADDING), dtype=torch.int32)
    for row, prompt in enumerate(prompts):
        count = len(prompt["point_labels"])
        coords[row, :count] = torch.from_numpy(prompt["point_coords"])
        labels[row, :count] = torch.from_numpy(prompt["point_labels"])
    return coords, labels
