"""One training sample: a tile with some of its objects and one prompt for each.

Axes: O objects, K points (the longest prompt of the sample), H and W pixels. Coordinates are x, y of pixel centres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from schemas.points import PointLabel, Prompt
from schemas.store.tile import Tile


@dataclass(frozen=True)
class Sample:
    """A tile, its chosen objects and their prompts; every transform takes and returns one.

    Attributes:
        tile_index: The tile's index in the store.
        image: uint8 (3, H, W), RGB; its bytes may lie in the order H, W, 3.
        segments: bool (O, H, W).
        ignore: bool (H, W), pixels that no loss term sees.
        point_coords: float32 (O, K, 2) as x, y; (0, 0) where padded.
        point_labels: int32 (O, K), SAM 2's codes; -1 is padding.
        object_ids: int64 (O,), unique in the tile.
        class_ids: int64 (O,), pixel value of the class.
        dropped: How many chosen objects a transform has lost.
        skipped: How many random maps were left out, since each draw would have lost an object.
        click_draws: float32 (O, D), numbers in [0, 1) that correction clicks are drawn by.
        color_draws: float32 (C,), numbers in [0, 1) that colours are drawn by.
        view: Which of the eight flips and turns was drawn: quarter turns, and 4 more where it is mirrored.
        features: bfloat16 (side, side, channels) a level instead of the image, which then has no channel.
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

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[-1], self.image.shape[-2]

    def keep(self, objects: Tensor) -> Sample:
        """Keep some objects, given by a boolean (O,); the others count as dropped."""
        return replace(
            self,
            segments=self.segments[objects],
            point_coords=self.point_coords[objects],
            point_labels=self.point_labels[objects],
            object_ids=self.object_ids[objects],
            class_ids=self.class_ids[objects],
            dropped=self.dropped + int((~objects).sum()),
            click_draws=None if self.click_draws is None else self.click_draws[objects],
        )

    def without_objects(self) -> Sample:
        """Leave all objects out; none of them counts as dropped."""
        return replace(self.keep(torch.zeros(len(self.object_ids), dtype=torch.bool)), dropped=self.dropped)

    def with_draws(self, click_draws: Tensor, color_draws: Tensor) -> Sample:
        """Attach the numbers that clicks and colours are drawn by."""
        return replace(self, click_draws=click_draws, color_draws=color_draws)

    def with_prompts(self, coords: Tensor, labels: Tensor) -> Sample:
        """Replace the prompts: float32 (O, K, 2) and int32 (O, K)."""
        return replace(self, point_coords=coords, point_labels=labels)


def read_sample(tile: Tile, prompts: dict[int, Prompt], *, image: bool = True) -> Sample:
    """Read a tile with the objects that prompts are given for; nothing else of it is read.

    Args:
        tile: The tile.
        prompts: The prompt of each wanted object by its object id, in the tile's order.
        image: Whether to read the image; otherwise the sample has an image of the same size without channels.
    """
    height, width = tile.ignore.shape
    pixels = tile.image if image else np.empty((height, width, 0), np.uint8)
    coords, labels = pad_prompts(list(prompts.values()))
    return Sample(
        tile_index=tile.index,
        # A view: bytes stay in the order of the store, which OpenCV turns and a GPU convolves fastest.
        image=torch.from_numpy(pixels).permute(2, 0, 1),
        segments=torch.from_numpy(tile.segments(prompts)),
        ignore=torch.from_numpy(tile.ignore),
        point_coords=coords,
        point_labels=labels,
        object_ids=torch.tensor(list(prompts), dtype=torch.int64),
        class_ids=torch.tensor([tile.classes[object_id] for object_id in prompts], dtype=torch.int64),
    )


def pad_prompts(prompts: list[Prompt]) -> tuple[Tensor, Tensor]:
    """Pad prompts to the longest.

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
