"""Predict masks of a tile's objects from their prompts, at the tile's own resolution.

Axes: O objects, S pixels a side of the tile, s pixels a side of the model's input. Coordinates are x, y.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from schemas.prompts import Prompt
from train.collate import group_by_points
from train.device import autocast
from train.model import ImageFeatures, PromptableSam, upsample
from train.sample import pad_prompts
from train.transforms import scale_points

OBJECTS_PER_PASS = 32
"""Bound on the decoder's batch: the masks of as many objects at 1024 px take 400 MB."""


class MaskPredictor:
    """A model that is asked, not trained.

    Args:
        model: The model; it is moved to the device. Its mode is left alone, and is evaluation while it predicts.
        device: Where it runs.
    """

    def __init__(self, model: PromptableSam, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device

    @torch.inference_mode()
    def embed(self, image: NDArray[np.uint8]) -> ImageFeatures:
        """Encode one image, uint8 (S, S, 3)."""
        size = self.model.image_size
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None]
        if pixels.shape[-2:] != (size, size):
            resized = F.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True)
            pixels = resized.round().clamp(0, 255).to(torch.uint8)
        with _evaluating(self.model), autocast(self.device):
            return self.model.encode(pixels)

    @torch.inference_mode()
    def masks(self, features: ImageFeatures, prompts: list[Prompt], size_px: int) -> NDArray[np.bool_]:
        """Predict one mask a prompt; of several candidates the one with the best IoU estimate.

        Args:
            features: From `embed`.
            prompts: O prompts in the tile's pixels.
            size_px: S.

        Returns:
            bool (O, S, S).
        """
        masks = np.zeros((len(prompts), size_px, size_px), bool)
        coords, labels = pad_prompts(prompts)
        coords = scale_points(coords, (size_px, size_px), (self.model.image_size, self.model.image_size))
        for group in group_by_points(labels):
            for rows in group.objects.split(OBJECTS_PER_PASS):
                # `pad_prompts` pads at the end, so the real points are the first ones.
                logits = self._best(features, coords[rows, : group.count], labels[rows, : group.count])
                masks[rows.numpy()] = (upsample(logits, size_px, size_px)[:, 0] > 0).cpu().numpy()
        return masks

    def _best(self, features: ImageFeatures, coords: Tensor, labels: Tensor) -> Tensor:
        first = torch.zeros(len(coords), dtype=torch.int64, device=self.device)
        with _evaluating(self.model), autocast(self.device):
            found = self.model.decode(features.of_objects(first), coords.to(self.device), labels.to(self.device))
        best = found.ious.argmax(1)
        return found.logits[torch.arange(len(best), device=self.device), best][:, None]


@contextmanager
def _evaluating(model: PromptableSam) -> Generator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
