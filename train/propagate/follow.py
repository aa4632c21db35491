"""Follow objects through frames: prompts on the first frame, and the model's memory for the others.

Axes: O objects, N objects of one decoder pass, K points, H and W pixels of a frame, S side of the input in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from train.data.point_groups import group_by_points
from train.loss.pixel_terms import upsample
from train.model.memory import FrameAnswer, FrameMemory
from train.model.predictor import OBJECTS_PER_PASS, MaskPredictor
from train.model.promptable import ImageFeatures
from train.runtime.device import autocast

FirstMasks = NDArray[np.bool_]
"""The masks of the objects in the first frame, bool (O, H, W)."""

FirstPoints = tuple[Tensor, Tensor]
"""Coordinates in pixels of the first frame, float32 (O, K, 2) as x, y, and labels, int32 (O, K); -1 is padding."""


@dataclass(frozen=True)
class _Followed:
    """Objects that are followed together: their rows along O, their memory, and their points in the first frame."""

    rows: Tensor
    memory: FrameMemory
    points: FirstPoints | None


def follow(
    predictor: MaskPredictor, frames: Iterable[NDArray[np.uint8]], first: FirstMasks | FirstPoints, num_frames: int
) -> Iterator[NDArray[np.float32]]:
    """Predict the masks of all objects in each frame, one frame after another.

    Only the memory is kept, so the number of frames has no limit. Like Meta's predictors, the model sees every frame as
    a square of its input size. Objects do not see each other, and their masks may overlap.

    Args:
        predictor: The model.
        frames: The frames in order, each uint8 (H, W, 3).
        first: Masks or points of the objects in the first frame.
        num_frames: Number of frames.

    Yields:
        The mask logits in one frame, float32 (O, H, W); a pixel above 0 is in the mask.
    """
    groups = _groups(predictor, first, num_frames)
    model, side = predictor.model, predictor.model.image_size
    for number, frame in enumerate(frames):
        height, width = frame.shape[:2]
        logits = np.zeros((sum(len(group.rows) for group in groups), height, width), np.float32)
        was_training = model.training
        model.eval()
        # `inference_mode` would leave tensors in Meta's caches that training could not use afterwards.
        with torch.no_grad(), autocast(predictor.device):
            features = model.encode_frames(predictor.model_input(_square_frame(frame, side)))
            for group in groups:
                own = features.of_objects(torch.zeros(len(group.rows), dtype=torch.int64, device=predictor.device))
                given = first if number == 0 and isinstance(first, np.ndarray) else None
                answer = _answer(group, number, own, given, (width, height), side)
                group.memory.remember(number, own, answer, prompted=number == 0)
                logits[group.rows.numpy()] = upsample(answer.best, height, width)[:, 0].cpu().numpy()
        model.train(was_training)
        yield logits


def _groups(predictor: MaskPredictor, first: FirstMasks | FirstPoints, num_frames: int) -> list[_Followed]:
    """Divide the objects into groups whose prompts have the same number of points, and that fit into one pass."""
    if isinstance(first, np.ndarray):
        rows = torch.arange(len(first)).split(OBJECTS_PER_PASS)
        return [_Followed(part, FrameMemory(predictor.model, num_frames), None) for part in rows if len(part)]
    coords, labels = first
    return [
        _Followed(
            part, FrameMemory(predictor.model, num_frames), (coords[part, : group.count], labels[part, : group.count])
        )
        for group in group_by_points(labels)
        for part in group.objects.split(OBJECTS_PER_PASS)
    ]


def _answer(
    group: _Followed,
    number: int,
    features: ImageFeatures,
    given: FirstMasks | None,
    size_wh: tuple[int, int],
    side: int,
) -> FrameAnswer:
    """Return the answer for one frame; the first one has the prompt."""
    if given is not None:
        masks = _square_masks(given[group.rows.numpy()], side, features.embedding.device)
        answer = group.memory.accept(features, masks)
        # Meta's video predictor remembers a given mask at the resolution of predicted ones. Its training does not.
        return replace(answer, best_full=upsample(answer.best, side, side))
    points = None
    if number == 0 and group.points is not None:
        coords, labels = group.points
        device = features.embedding.device
        # Meta's video predictor scales points from the corner of a pixel. `scale_points`, for images, scales from its
        # center; under that rule the masks of resized frames differ from Meta's (IoU 0.988 for a click).
        scaled = coords if size_wh == (side, side) else coords / coords.new_tensor(size_wh) * side
        points = scaled.to(device), labels.to(device)
    return group.memory.answer(group.memory.recall(number, features), features, points)


def _square_frame(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize a frame to uint8 (S, S, 3) with Pillow's bicubic filter, as Meta's video predictor does."""
    if frame.shape[:2] == (side, side):
        return frame
    return np.array(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))


def _square_masks(masks: NDArray[np.bool_], side: int, device: torch.device) -> Tensor:
    """Resize masks to bool (N, S, S), as Meta's predictor does."""
    pixels = torch.from_numpy(masks)[:, None].to(device, torch.float32)
    if pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return pixels[:, 0] >= 0.5
