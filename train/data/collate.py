"""Collate samples to a batch.

The objects of all images share one axis, and all prompts are padded to the length of the longest one.
Axes: T frames (1 for images), B images or windows, O objects of the whole batch, K points. Coordinates are x, y.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from schemas.errors import TrainingError
from schemas.prompt_kinds import PointLabel
from train.data.point_groups import PointGroup, group_by_points
from train.transforms.sample import Sample


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        images: The RGB images, uint8 [T, B, 3, H, W]; the channels are last in memory.
        ignore: The pixels that count neither in the loss nor in a score, bool [T, B, H, W].
        masks: The segment of each object, bool [T, O, H, W]; empty in a frame in which the object is hidden.
        point_coords: The points of each prompt, float32 [T, O, K, 2] as x, y in pixels; (0, 0) where padded.
        point_labels: SAM 2's label of each point, int32 [T, O, K]; -1 is padding.
        object_to_image: The frame index and the image index of each object, int64 [T, O, 2].
        identifiers: The tile index, object id and frame index of each object, int64 [T, O, 3].
        class_ids: The mask value of each object's class, int64 [T, O].
        groups: The objects grouped by their number of real points in the first frame, the only one with a prompt; each
            object is in exactly one group.
        dropped: Number of objects that lost all their pixels in a transform.
        skipped: Number of random maps that were skipped because they would have lost an object.
        num_scored_objects: Number of objects whose image or window has at least one pixel that is not ignored.
        objects_by_class: Number of objects by the mask value of their class. It is known without asking the device.
        click_draws: Random numbers for correction clicks, float32 [T, O, D]; D may be 0. See
            `train.data.training_clicks`.
        color_draws: Random numbers for color augmentation, float32 [T, B, C]; C may be 0. See
            `train.transforms.color`.
        features: Stored encoder features that replace the images, or None: one tensor per level, each bfloat16
            [T, B, side, side, channels]. See `train.features.cache`.
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
    objects_by_class: dict[int, int]
    click_draws: Tensor
    color_draws: Tensor
    features: tuple[Tensor, ...] | None = None

    @property
    def num_objects(self) -> int:
        """Number of objects in the batch, O."""
        return self.masks.shape[1]

    @property
    def tile_indices(self) -> list[int]:
        """Indices of the tiles that the objects come from, in ascending order."""
        return sorted(set(self.identifiers[0, :, 0].tolist()))

    def to(self, device: torch.device) -> Batch:
        """Copy all tensors to a device; a copy from pinned memory does not block."""
        return self.with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Pin the memory of all tensors; the DataLoader calls this."""
        return self.with_each(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tell the allocator that a stream reads these tensors, so that it does not reuse their memory too early."""

        def record(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self.with_each(record)

    def with_each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply a function to every tensor of the batch, including those in `features` and `groups`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        features = None if self.features is None else tuple(change(level) for level in self.features)
        groups = tuple(replace(group, objects=change(group.objects)) for group in self.groups)
        return replace(self, **changed, features=features, groups=groups)


def collate(samples: list[Sample]) -> Batch:
    """Collate samples that have the same image size; a sample may have no objects.

    Torch's `default_collate` stacks the large arrays. In a loading process it writes them into memory that is shared
    with the training process, which saves one copy.

    Args:
        samples: B samples.

    Returns:
        The batch of the B samples.

    Raises:
        TrainingError: This process is a loading process, and shared memory has no room for the batch.
    """
    if get_worker_info() is None:
        return _collate(samples)
    try:
        # Move the tensors to shared memory here, where an error reaches the training process. In the thread that sends
        # the batch the error would be lost, and the training process would wait forever.
        return _collate(samples).with_each(_shared)
    except RuntimeError as error:
        if _SHARED_FILE not in str(error):
            raise
        size_mb = sum(sample.image.nbytes + sample.segments.nbytes for sample in samples) / 1e6
        raise TrainingError(
            "shared memory (/dev/shm)",
            f"has no room for a batch of {size_mb:.0f} MB ({error})",
            "enlarge it, for example with `docker run --shm-size 8g`, or use --workers 0",
        ) from error


def _shared(tensor: Tensor) -> Tensor:
    # Torch cannot share the memory of an empty tensor.
    return tensor.share_memory_() if tensor.numel() else tensor


_SHARED_FILE = "</torch_"
"""Part of torch's error messages that names one of its files in shared memory."""


def _collate(samples: list[Sample]) -> Batch:
    frames = len(samples[0].frames)
    # Every sample of a frame, frame after frame.
    ordered = [sample.frames[frame] for frame in range(frames) for sample in samples]
    longest = max(sample.point_labels.shape[1] for sample in samples)
    labels = torch.cat([_padded(sample.point_labels, longest, int(PointLabel.PADDING)) for sample in ordered])
    coords = torch.cat([_padded(sample.point_coords, longest, 0) for sample in ordered])
    counts = [len(sample.object_ids) for sample in samples]
    image_of_object = torch.arange(len(samples)).repeat_interleave(torch.tensor(counts)).repeat(frames)
    frame = torch.arange(frames).repeat_interleave(sum(counts))
    tile = torch.tensor([s.tile_index for s in ordered])[frame * len(samples) + image_of_object]
    corrected = [sample.corrected for sample, count in zip(samples, counts, strict=True) for _ in range(count)]

    by_class = Counter(code for sample in samples for code in sample.class_ids.tolist())

    def in_frames(values: Tensor) -> Tensor:
        return values.unflatten(0, (frames, -1)) if len(values) else values.reshape(frames, 0, *values.shape[1:])

    return Batch(
        # Tiles are stored with the channels last, so stack them that way and view the result with the channels first.
        images=in_frames(default_collate([sample.image.permute(1, 2, 0) for sample in ordered]).permute(0, 3, 1, 2)),
        ignore=in_frames(default_collate([sample.ignore for sample in ordered])),
        masks=in_frames(_stacked_segments(ordered)),
        point_coords=in_frames(coords),
        point_labels=in_frames(labels),
        object_to_image=in_frames(torch.stack([frame, image_of_object], -1)),
        identifiers=in_frames(torch.stack([tile, torch.cat([s.object_ids for s in ordered]), frame], -1)),
        class_ids=in_frames(torch.cat([sample.class_ids for sample in ordered])),
        groups=group_by_points(labels[: sum(counts)], corrected),
        dropped=sum(sample.dropped for sample in samples),
        skipped=sum(sample.skipped for sample in samples),
        num_scored_objects=sum(len(sample.object_ids) for sample in samples if not _is_ignored(sample)),
        objects_by_class=dict(by_class),
        click_draws=in_frames(torch.cat([_draws(sample.click_draws, len(sample.object_ids)) for sample in ordered])),
        color_draws=in_frames(torch.stack([_draws(sample.color_draws, None) for sample in ordered])),
        features=_stacked([sample.features for sample in samples]),
    )


def _is_ignored(sample: Sample) -> bool:
    """Return whether no pixel of any frame counts."""
    return all(frame.ignore.numpy().all() for frame in sample.frames)


def _stacked(features: list[tuple[Tensor, ...] | None]) -> tuple[Tensor, ...] | None:
    """Stack the features of all images for each level; return None if the images have no features."""
    per_image = [levels for levels in features if levels is not None]
    return tuple(default_collate(list(level))[None] for level in zip(*per_image, strict=True)) if per_image else None


def _stacked_segments(samples: list[Sample]) -> Tensor:
    """Stack the segments of all samples to bool (O, H, W)."""
    segments = [segment for sample in samples for segment in sample.segments]
    return default_collate(segments) if segments else samples[0].segments


def _draws(draws: Tensor | None, rows: int | None) -> Tensor:
    """Return the draws, or an empty tensor where there are none: (rows, 0), or (0,) without a number of rows."""
    if draws is not None:
        return draws
    return torch.zeros(0) if rows is None else torch.zeros(rows, 0)


def _padded(points: Tensor, length: int, value: int) -> Tensor:
    """Pad point coordinates (O, K, 2) or labels (O, K) with a value to `length` points."""
    missing = length - points.shape[1]
    return F.pad(points, (0, 0) * (points.dim() - 2) + (0, missing), value=value)
