"""Predict the masks of a whole batch. Objects with the same number of points are decoded together.

In training, correction clicks on the error can follow the first prompt. In a batch of several frames, the first frame
has the prompt, and the model finds the objects in the other frames with its memory.

Axes: T frames, B images, O objects of the batch, N objects of one group, M candidate masks, K points, S pixels per side
of the input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.data.collate import Batch
from train.data.point_groups import PointGroup
from train.data.training_clicks import DRAWS_PER_CLICK, correction_clicks
from train.loss.pixel_terms import upsample
from train.loss.prediction import GroupPrediction, MaskPrediction
from train.model.memory import FrameAnswer, FrameMemory
from train.model.promptable import ImageFeatures, PromptableSam

Points = tuple[Tensor, Tensor]
"""Coordinates, float32 (N, K, 2) as x, y, and labels, int32 (N, K)."""


class TrainingForward(nn.Module):
    """Predicts the masks of a batch.

    Args:
        model: The model.
        corrections: Number of clicks on the error after the first prompt. They are simulated only in training mode.
        mask_prompt_share: Share of these clicks that come with the logits of the pass before, as a prompt.
    """

    def __init__(self, model: PromptableSam, corrections: int = 0, mask_prompt_share: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.corrections = corrections
        self.mask_prompt_share = mask_prompt_share

    def forward(self, batch: Batch, images: Tensor | None = None) -> list[GroupPrediction]:
        """Predict the masks of a batch, group by group and frame by frame.

        Args:
            batch: The batch.
            images: float32 or uint8 (T B, 3, S, S) from 0 to 255, images after color augmentation, used instead of the
                batch's own images; None uses the batch's. If the batch has stored features, images are not used.

        Returns:
            One prediction per group and frame, with one entry in `passes` for the first prompt and one for each
            correction.
        """
        images = batch.images.flatten(0, 1) if images is None else images
        if batch.images.shape[0] > 1:
            by_frame = self.model.encode_frames(images).by_frame(batch.images.shape[0])
            return [found for group in batch.groups for found in self._tracked(by_frame, batch, group)]
        if batch.features is not None:
            features = self.model.encode_from([level[0] for level in batch.features])
        else:
            features = self.model.encode(images)
        predictions: list[GroupPrediction] = []
        for group in batch.groups:
            own_features = features.of_objects(batch.object_to_image[0, group.objects, 1])
            passes = self._passes(own_features, _first_prompt(batch, group), batch, group.objects)
            predictions.append(GroupPrediction(group.objects, passes))
        return predictions

    def _passes(
        self, features: ImageFeatures, prompt: Points, batch: Batch, objects: Tensor
    ) -> tuple[MaskPrediction, ...]:
        """Decode the first prompt; in training, add one click at a time, mostly with the last pass's best logits."""
        points = prompt
        passes = [self.model.decode(features, *points)]
        if not self.corrections or not self.model.training:
            return tuple(passes)
        for number in range(self.corrections):
            last = passes[-1]
            best = last.ious.argmax(1)
            logits = last.logits[torch.arange(len(best), device=best.device), best][:, None]
            points = _with_click(points, logits, batch, objects, number)
            has_mask = self._has_mask(batch.click_draws[0, objects], number)
            passes.append(self.model.decode(features, *points, logits, has_mask))
        return tuple(passes)

    def _has_mask(self, draws: Tensor, number: int) -> Tensor | None:
        """Return which objects get a mask with a click, bool (N,); None if all do."""
        if self.mask_prompt_share == 1:
            return None
        return draws[:, DRAWS_PER_CLICK * self.corrections + number] < self.mask_prompt_share

    def _tracked(self, by_frame: list[ImageFeatures], batch: Batch, group: PointGroup) -> list[GroupPrediction]:
        """Predict the masks of a group in all frames; each frame sees what the model answered in the frames before."""
        frames = len(by_frame)
        memory = FrameMemory(self.model, frames)
        predictions: list[GroupPrediction] = []
        for frame, features in enumerate(by_frame):
            own_features = features.of_objects(batch.object_to_image[frame, group.objects, 1])
            answers, prompted = self._answers(memory, frame, own_features, batch, group)
            predictions.append(GroupPrediction(group.objects, tuple(answer.prediction for answer in answers), frame))
            if frame + 1 < frames:
                memory.remember(frame, own_features, answers[-1], prompted=prompted)
        return predictions

    def _answers(
        self, memory: FrameMemory, frame: int, features: ImageFeatures, batch: Batch, group: PointGroup
    ) -> tuple[list[FrameAnswer], bool]:
        """Return the answers after the prompt and after each click in one frame, and whether the frame had a prompt."""
        if not frame and not group.count:
            return [memory.accept(features, batch.masks[0, group.objects])], True
        embedding = memory.recall(frame, features)
        points = None if frame else _first_prompt(batch, group)
        answers = [memory.answer(embedding, features, points)]
        # A mask prompt shows the outline, so no click corrects it, in later frames either, as in Meta's training.
        if not (self.corrections and self.model.training and group.count and frame in group.corrected):
            return answers, points is not None
        for number in range(self.corrections):
            logits = answers[-1].best
            points = _with_click(points, logits, batch, group.objects, number, frame)
            answers.append(memory.answer(embedding, features, points, logits))
        return answers, True


def _first_prompt(batch: Batch, group: PointGroup) -> Points:
    """Return the group's points in the first frame, without padding."""
    labels = batch.point_labels[0, group.objects]
    # A stable sort moves the real points to the front in their order. The padding after them is cut off.
    order = (labels < 0).to(torch.int8).argsort(dim=1, stable=True)[:, : group.count]
    coords = batch.point_coords[0, group.objects].gather(1, order[..., None].expand(-1, -1, 2))
    return coords, labels.gather(1, order)


@torch.no_grad()
def _with_click(
    points: Points | None, logits: Tensor, batch: Batch, objects: Tensor, number: int, frame: int = 0
) -> Points:
    """Add the correction click of this number, which corrects the mask logits of the last pass, (N, 1, S/4, S/4)."""
    targets = batch.masks[frame, objects]
    valid = ~batch.ignore[frame, batch.object_to_image[frame, objects, 1]]
    first = DRAWS_PER_CLICK * number
    draws = batch.click_draws[frame, objects, first : first + DRAWS_PER_CLICK]
    coords, labels = correction_clicks(upsample(logits, *targets.shape[-2:]), targets, valid, draws)
    if points is None:
        return coords, labels
    return torch.cat([points[0], coords], 1), torch.cat([points[1], labels], 1)
