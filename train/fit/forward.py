"""Predict the masks of a whole batch. Objects with the same number of points are decoded together.

In training, correction clicks on the error can follow the first prompt.

Axes: T frames (1), B images, O objects of the batch, N objects of one group, M candidate masks, K points, S pixels a
side of the input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from schemas.errors import ConfigError
from train.data.collate import Batch
from train.data.training_clicks import DRAWS_PER_CLICK, correction_clicks
from train.loss.pixel_terms import upsample
from train.loss.prediction import GroupPrediction, MaskPrediction
from train.model.promptable import ImageFeatures, PromptableSam


class TrainingForward(nn.Module):
    """Predicts the masks of a batch.

    Args:
        model: The model.
        corrections: Number of clicks on the error after the first prompt. They are simulated only in training mode.
    """

    def __init__(self, model: PromptableSam, corrections: int = 0) -> None:
        super().__init__()
        self.model = model
        self.corrections = corrections

    def forward(self, batch: Batch, images: Tensor | None = None) -> list[GroupPrediction]:
        """Predict the masks of a batch, group by group.

        Args:
            batch: The batch.
            images: float32 or uint8 (B, 3, S, S) from 0 to 255, images after color augmentation, used instead of the
                batch's own images; None uses the batch's. If the batch has stored features, images are not used.

        Returns:
            One prediction per group, with one entry in `passes` for the first prompt and one for each correction.

        Raises:
            ConfigError: The batch has more than one frame.
        """
        frames = batch.images.shape[0]
        if frames != 1:
            raise ConfigError(f"a batch of {frames} frames", "is a video, but training takes images", "use T = 1")
        if batch.features is not None:
            features = self.model.encode_from([level[0] for level in batch.features])
        else:
            features = self.model.encode(batch.images[0] if images is None else images)
        predictions: list[GroupPrediction] = []
        for group in batch.groups:
            objects = group.objects
            labels = batch.point_labels[0, objects]
            # A stable sort moves the real points to the front in their order. The padding after them is cut off.
            order = (labels < 0).to(torch.int8).argsort(dim=1, stable=True)[:, : group.count]
            coords = batch.point_coords[0, objects].gather(1, order[..., None].expand(-1, -1, 2))
            own_features = features.of_objects(batch.object_to_image[0, objects, 1])
            passes = self._passes(own_features, (coords, labels.gather(1, order)), batch, objects)
            predictions.append(GroupPrediction(objects, passes))
        return predictions

    def _passes(
        self, features: ImageFeatures, prompt: tuple[Tensor, Tensor], batch: Batch, objects: Tensor
    ) -> tuple[MaskPrediction, ...]:
        """Decode the first prompt; in training, add one click at a time, fed with the best logits of the last pass."""
        coords, labels = prompt
        passes = [self.model.decode(features, coords, labels)]
        if not self.corrections or not self.model.training:
            return tuple(passes)
        targets = batch.masks[0, objects]
        valid = ~batch.ignore[0, batch.object_to_image[0, objects, 1]]
        draws = batch.click_draws[0, objects]
        for number in range(self.corrections):
            last = passes[-1]
            best = last.ious.argmax(1)
            logits = last.logits[torch.arange(len(best), device=best.device), best][:, None]
            with torch.no_grad():
                shown = upsample(logits, *targets.shape[-2:])
                first = DRAWS_PER_CLICK * number
                click = correction_clicks(shown, targets, valid, draws[:, first : first + DRAWS_PER_CLICK])
            coords, labels = torch.cat([coords, click[0]], 1), torch.cat([labels, click[1]], 1)
            passes.append(self.model.decode(features, coords, labels, logits))
        return tuple(passes)
