"""Predict the masks of an image's objects from their prompts, at the resolution of the image.

Axes: O objects, K points, M candidate masks, H and W pixels of the image, s pixels along a side of the model's input.
Coordinates are x, y.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import ConfigError
from train.data.point_groups import group_by_points
from train.loss.pixel_terms import upsample
from train.model.checkpoint import WeightsFile
from train.model.promptable import ImageFeatures, PromptableSam
from train.model.seen_patients import SeenPatients
from train.model.trained_on import TrainedOn
from train.runtime.device import autocast
from train.transforms.geometry import scale_points
from train.transforms.orientation import ORIENTATIONS, Orientation

OBJECTS_PER_PASS = 32
"""Largest number of objects in one decoder pass: the masks of 32 objects at 1024 px take 400 MB."""

CPU_PIXELS_PER_PASS = 2 * 1024**2
"""Largest number of input pixels, over all objects, in one decoder pass on a CPU.

More pixels leave the CPU's caches: 8 objects at 1024 px took 0.79 s in one pass, and 0.47 s two at a time."""


@dataclass(frozen=True)
class View:
    """A tile's features in one of the eight orientations.

    Attributes:
        features: Features of the flipped or rotated image.
        orientation: Flip and rotation that were applied to the image.
        size_hw: Height and width of the image in pixels, before it was resized to the model's input.
    """

    features: ImageFeatures
    orientation: Orientation
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class Prediction:
    """A model's masks for the objects of a tile.

    Attributes:
        logits: float32 (O, s/4, s/4), mask logits of the candidate with the best IoU estimate.
        ious: float32 (O,), the model's IoU estimate of that candidate.
        size_hw: Height and width of the image in pixels; None if the masks have no image of their own.
    """

    logits: Tensor
    ious: Tensor
    size_hw: tuple[int, int] | None = None

    def replaced(self, rows: Tensor, other: Prediction) -> Prediction:
        """Return a copy in which the objects that `rows`, bool (O,), selects come from `other`."""
        logits = torch.where(rows[:, None, None], other.logits, self.logits)
        return Prediction(logits, torch.where(rows, other.ious, self.ious), self.size_hw)

    def masks(self, size_px: int | tuple[int, int] | None = None, threshold: float = 0.0) -> NDArray[np.bool_]:
        """Return the masks.

        Args:
            size_px: Size of the masks as in `MaskPredictor.predict`; None is the size of the image.
            threshold: A pixel whose upsampled logit is above this is in the mask.

        Returns:
            bool (O, H, W).

        Raises:
            ConfigError: The size contradicts the image.
        """
        height, width = _size_hw(size_px, self.size_hw)
        masks = np.zeros((len(self.logits), height, width), bool)
        for start in range(0, len(masks), OBJECTS_PER_PASS):
            rows = slice(start, start + OBJECTS_PER_PASS)
            masks[rows] = (upsample(self.logits[rows, None], height, width)[:, 0] > threshold).cpu().numpy()
        return masks


class MaskPredictor:
    """Predicts masks with a model that is not being trained.

    Args:
        model: The model; it is moved to the device. It predicts in evaluation mode, and then returns to its own mode.
        device: Device that the model runs on.
        weights: Identity of the file that the weights come from; None if there is no file.
        seen: The patients that the weights were trained and validated on; None if that is not recorded.
        trained_on: Record of the training data; None if there is none.
    """

    def __init__(
        self,
        model: PromptableSam,
        device: torch.device,
        weights: WeightsFile | None = None,
        seen: SeenPatients | None = None,
        trained_on: TrainedOn | None = None,
    ) -> None:
        self.model = model.to(device)
        self.device = device
        self.weights = weights
        self.seen = seen
        self.trained_on = trained_on

    def model_input(self, image: NDArray[np.uint8]) -> Tensor:
        """Resize an image, uint8 (H, W, 3), to the square that the model sees, uint8 (1, 3, S, S) on its device."""
        size = self.model.image_size
        # Torch does not take an array with a negative stride, as an image that was flipped or read as BGR has.
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1)[None]
        if pixels.shape[-2:] != (size, size):
            resized = F.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True)
            pixels = resized.round().clamp(0, 255).to(torch.uint8)
        return pixels

    @torch.inference_mode()
    def views(self, image: NDArray[np.uint8], *, all_eight: bool = False) -> list[View]:
        """Encode one image, uint8 (H, W, 3): as it is, or in all eight combinations of flips and quarter turns.

        Like Meta's predictor, the model sees every image as a square of its input size.
        """
        pixels = self.model_input(image)
        found: list[View] = []
        for orientation in ORIENTATIONS if all_eight else ORIENTATIONS[:1]:
            with evaluating(self.model), autocast(self.device):
                features = self.model.encode(orientation.tensor(pixels))
            found.append(View(features, orientation, (image.shape[0], image.shape[1])))
        return found

    @torch.inference_mode()
    def predict(
        self,
        views: Sequence[View],
        coords: Tensor,
        labels: Tensor,
        size_px: int | tuple[int, int] | None = None,
        mask_logits: Tensor | None = None,
    ) -> Prediction:
        """Predict one mask per prompt; each view chooses its own candidate, and these are averaged.

        Args:
            views: Features of the image from `views`.
            coords: float32 (O, K, 2), x and y in pixels of the image, padded at the end.
            labels: int32 (O, K), SAM 2's point codes; -1 for padding.
            size_px: Height and width of the image that the coordinates refer to, or the side of a square one; None is
                the image that was encoded.
            mask_logits: float32 (O, s/4, s/4), logits of a previous pass as additional prompts; None gives none.

        Returns:
            For each object, the mean over the views of the logits and of the IoU estimate of the candidate that has the
            best estimate in its view.

        Raises:
            ConfigError: The size contradicts the image.
        """
        side = self.model.image_size
        height, width = _size_hw(size_px, views[0].size_hw)
        scaled = scale_points(coords, (width, height), (side, side))
        logits = torch.zeros(len(coords), side // 4, side // 4, device=self.device)
        ious = torch.zeros(len(coords), device=self.device)
        for group in group_by_points(labels):
            for rows in group.objects.split(self._objects_per_pass()):
                own_coords = scaled[rows, : group.count].to(self.device)
                own_labels = labels[rows, : group.count].to(self.device)
                places = rows.to(self.device)
                before = None if mask_logits is None else mask_logits[places]
                found = self._in_each_view(views, own_coords, own_labels, before)
                logits[places], ious[places] = _mean(_best(*each) for each in found)
        return Prediction(logits, ious, (height, width))

    @torch.inference_mode()
    def candidates(self, views: Sequence[View], coords: Tensor, labels: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
        """Predict all candidate masks of prompts that have the same number of points, in one pass.

        Args:
            views: Features of the image from `views`.
            coords: float32 (O, K, 2), x and y in pixels of the image, without padding.
            labels: int32 (O, K), SAM 2's point codes.
            size_px: Side of the image that the coordinates refer to.

        Returns:
            Mean logits (O, M, s/4, s/4) and IoU estimates (O, M) of the M candidates of the first view. Each other view
            adds its candidate that is most like them.
        """
        side = self.model.image_size
        scaled = scale_points(coords, (size_px, size_px), (side, side)).to(self.device)
        found = self._in_each_view(views, scaled, labels.to(self.device), None)
        first = next(found)
        return _mean(chain([first], (_most_like(first[0], *each) for each in found)))

    def _in_each_view(
        self, views: Sequence[View], coords: Tensor, labels: Tensor, mask_logits: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield logits (O, M, s/4, s/4) and IoU estimates (O, M) of each view, whose masks lie as in the image."""
        side = self.model.image_size
        first = torch.zeros(len(coords), dtype=torch.int64, device=self.device)
        for view in views:
            moved = view.orientation.points(coords, labels, (side, side))
            before = None if mask_logits is None else view.orientation.tensor(mask_logits)[:, None]
            features = view.features.of_objects(first)
            with evaluating(self.model), autocast(self.device):
                found = self.model.decode(features, moved, labels, before)
            yield view.orientation.inverse.tensor(found.logits.float()), found.ious.float()

    def _objects_per_pass(self) -> int:
        if self.device.type != "cpu":
            return OBJECTS_PER_PASS
        return min(max(CPU_PIXELS_PER_PASS // self.model.image_size**2, 1), OBJECTS_PER_PASS)


def _best(logits: Tensor, ious: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (O, s/4, s/4) and IoU estimate (O,) of the candidate that has the best estimate.

    Views do not choose a number together, because the candidates of one number may be different parts of the tissue: in
    a model that began with random weights, no number has a meaning of its own.
    """
    best = ious.argmax(1)
    row = torch.arange(len(best), device=best.device)
    return logits[row, best], ious[row, best]


def _most_like(wanted: Tensor, logits: Tensor, ious: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and IoU estimates of the candidates whose masks have the highest IoU with those of `wanted`.

    The shapes of all are (O, M, s/4, s/4) and (O, M).
    """
    row = torch.arange(len(logits), device=logits.device)
    chosen: list[tuple[Tensor, Tensor]] = []
    for number in range(wanted.shape[1]):
        mask, others = wanted[:, number, None] > 0, logits > 0
        overlap, union = (mask & others).sum((2, 3)), (mask | others).sum((2, 3))
        # Two empty masks are alike.
        best = ((overlap + 1) / (union + 1)).argmax(1)
        chosen.append((logits[row, best], ious[row, best]))
    return torch.stack([found for found, _ in chosen], 1), torch.stack([estimate for _, estimate in chosen], 1)


def _mean(views: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the mean logits and the mean IoU estimates of the views, of which only one is in memory."""
    (logits, ious), count = next(views), 1
    for more_logits, more_ious in views:
        logits, ious, count = logits + more_logits, ious + more_ious, count + 1
    return logits / count, ious / count


def _size_hw(size_px: int | tuple[int, int] | None, image_hw: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width; if an image is not square, either of its sides stands for its size.

    Raises:
        ConfigError: The given side is neither the height nor the width of the image, or no size is known.
    """
    if isinstance(size_px, tuple):
        return size_px
    if size_px is None:
        if image_hw is None:
            raise ConfigError(
                "size_px", "is not given, and these masks do not record the size of an image", "give size_px"
            )
        return image_hw
    if image_hw is None or image_hw[0] == image_hw[1]:
        return size_px, size_px
    if size_px not in image_hw:
        height, width = image_hw
        raise ConfigError(
            f"size_px {size_px}",
            f"is neither side of an image of {width} x {height} px",
            "leave it out, or give (height, width)",
        )
    return image_hw


@contextmanager
def evaluating(model: PromptableSam) -> Generator[None]:
    """Keep a model in evaluation mode, and set the mode that it had afterwards.

    To set the mode of hundreds of modules takes longer than a small model needs for a mask, so a model that is in
    evaluation mode is left as it is.
    """
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()
