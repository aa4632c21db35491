"""Collate samples to a batch: objects of all images in one row, prompts padded to the longest.

Axes: T frames (1 for images), B images, O objects of the whole batch, K points. Coordinates are x, y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from schemas.errors import TrainingError
from schemas.points import PointLabel
from train.data.point_groups import PointGroup, group_by_points
from train.transforms.sample import Sample


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        images: uint8 [T, B, 3, H, W], channels last in memory.
        ignore: bool [T, B, H, W].
        masks: bool [T, O, H, W].
        point_coords: float32 [T, O, K, 2] as x, y.
        point_labels: int32 [T, O, K], -1 is padding.
        object_to_image: int64 [T, O, 2], the frame and the image of each object.
        identifiers: int64 [T, O, 3], tile index, object id and frame.
        class_ids: int64 [T, O].
        groups: The objects by number of real points; all O once.
        dropped: Objects that transforms lost.
        skipped: Random maps that were left out, lest they lose an object.
        num_scored_objects: Objects whose image has a pixel that counts.
        click_draws: float32 [T, O, D], see `train.data.training_clicks`; D may be 0.
        color_draws: float32 [T, B, C], see `train.transforms.color`; C may be 0.
        features: bfloat16 [T, B, side, side, channels] a level instead of images, see `train.features.cache`.
    """

    images: Tensor
    ignore: Tensor
    masks: Tensor
    point_coords: Tensor
    point_labels: Tensor
    object_to_image: Tensor
    identifiers: Tensor
    class_ids: Tensor
    groups: tuple[PointGroup, ...]
    dropped: int
    skipped: int
    num_scored_objects: int
    click_draws: Tensor
    color_draws: Tensor
    features: tuple[Tensor, ...] | None = None

    @property
    def num_objects(self) -> int:
        """O."""
        return self.masks.shape[1]

    @property
    def tile_indices(self) -> list[int]:
        """The tiles that objects come from, ascending."""
        return sorted(set(self.identifiers[0, :, 0].tolist()))

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, without waiting where the memory is pinned."""
        return self.with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Pin all tensors; the DataLoader calls this."""
        return self.with_each(lambda tensor: tensor.pin_memory())

    def with_each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Change every tensor."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        features = None if self.features is None else tuple(change(level) for level in self.features)
        groups = tuple(replace(group, objects=change(group.objects)) for group in self.groups)
        return replace(self, **changed, features=features, groups=groups)


def collate(samples: list[Sample]) -> Batch:
    """Collate samples of one image size; an image without objects is legal.

    What is large is stacked by torch's own `default_collate`, in a loading process straight into memory that the
    training process sees: a copy less.

    Args:
        samples: B samples.

    Raises:
        TrainingError: This is a loading process, and shared memory has no room for the batch.
    """
    if get_worker_info() is None:
        return _collate(samples)
    try:
        # Here an error reaches the training; in the thread that sends the batch it would be lost, and training would
        # wait for ever.
        return _collate(samples).with_each(_shared)
    except RuntimeError as error:
        if _SHARED_FILE not in str(error):
            raise
        size_mb = sum(sample.image.nbytes + sample.segments.nbytes for sample in samples) / 1e6
        raise TrainingError(
            "shared memory (/dev/shm)",
            f"has no room for a batch of {size_mb:.0f} MB ({error})",
            "give it more, as by `docker run --shm-size 8g`, or take --workers 0",
        ) from error


def _shared(tensor: Tensor) -> Tensor:
    # An empty tensor has nothing to share, and torch refuses it.
    return tensor.share_memory_() if tensor.numel() else tensor


_SHARED_FILE = "</torch_"
"""What torch calls its files in shared memory."""


def _collate(samples: list[Sample]) -> Batch:
    longest = max(sample.point_labels.shape[1] for sample in samples)
    labels = torch.cat([_padded(sample.point_labels, longest, int(PointLabel.PADDING)) for sample in samples])
    coords = torch.cat([_padded(sample.point_coords, longest, 0) for sample in samples])
    image_of_object = torch.cat([torch.full((len(s.object_ids),), b) for b, s in enumerate(samples)])
    tile_of_object = torch.tensor([s.tile_index for s in samples])[image_of_object]
    frame = torch.zeros_like(image_of_object)
    return Batch(
        # Stacked with the channels last, as tiles are stored, and viewed with the channels first.
        images=default_collate([sample.image.permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)[None],
        ignore=default_collate([sample.ignore for sample in samples])[None],
        masks=_stacked_segments(samples)[None],
        point_coords=coords[None],
        point_labels=labels[None],
        object_to_image=torch.stack([frame, image_of_object], -1)[None],
        identifiers=torch.stack([tile_of_object, torch.cat([s.object_ids for s in samples]), frame], -1)[None],
        class_ids=torch.cat([sample.class_ids for sample in samples])[None],
        groups=group_by_points(labels),
        dropped=sum(sample.dropped for sample in samples),
        skipped=sum(sample.skipped for sample in samples),
        num_scored_objects=sum(len(sample.object_ids) for sample in samples if not sample.ignore.numpy().all()),
        click_draws=torch.cat([_draws(sample.click_draws, len(sample.object_ids)) for sample in samples])[None],
        color_draws=torch.stack([_draws(sample.color_draws, None) for sample in samples])[None],
        features=_stacked([sample.features for sample in samples]),
    )


def _stacked(features: list[tuple[Tensor, ...] | None]) -> tuple[Tensor, ...] | None:
    """Stack the features of all images level by level, where they have any."""
    given = [levels for levels in features if levels is not None]
    return tuple(default_collate(list(of_level))[None] for of_level in zip(*given, strict=True)) if given else None


def _stacked_segments(samples: list[Sample]) -> Tensor:
    """All segments, bool (O, H, W)."""
    segments = [segment for sample in samples for segment in sample.segments]
    return default_collate(segments) if segments else samples[0].segments


def _draws(draws: Tensor | None, rows: int | None) -> Tensor:
    if draws is not None:
        return draws
    return torch.zeros(0) if rows is None else torch.zeros(rows, 0)


def _padded(points: Tensor, length: int, value: int) -> Tensor:
    missing = length - points.shape[1]
    return F.pad(points, (0, 0) * (points.dim() - 2) + (0, missing), value=value)
