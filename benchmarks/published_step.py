"""The training step as SAM 2's code publishes it, for single images; `step.py` compares ours with it.

It runs the memory encoder on the only frame, and gathers every level of features for every object. It computes the loss
of all three candidates on float32 logits at full size under autograd, and updates one parameter after another, eagerly.
As in our step, the object score does not gate masks, so that the two losses can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.train.plain_loss import plain_loss
from train.data.collate import Batch
from train.data.training_clicks import DRAWS_PER_CLICK, correction_clicks
from train.loss.prediction import MaskPrediction
from train.model.promptable import PromptableSam
from train.runtime.device import autocast
from train.settings import LossConfig


class PublishedStep:
    """Make steps with Meta's modules.

    Args:
        model: The model to train; frozen parameters are not updated, and a frozen encoder stays in training mode.
        corrections: Number of clicks on the error after the first prompt.
        device: The device of the model.
    """

    def __init__(self, model: PromptableSam, corrections: int, device: torch.device) -> None:
        self.model = model.train()
        self.corrections = corrections
        self.model.sam.train()
        self.model.sam.pred_obj_scores = False
        self.device = device
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=5e-6, weight_decay=0.1, foreach=False, fused=False)

    def __call__(self, batch: Batch) -> float:
        """Make one step; return its loss."""
        self.optimizer.zero_grad()
        with autocast(self.device):
            passes = self._forward(batch)
        valid = ~batch.ignore[0, batch.object_to_image[0, :, 1]]
        ones = torch.ones(batch.num_objects, device=self.device)
        loss = torch.zeros((), device=self.device)
        for prediction in passes:
            loss = loss + plain_loss(prediction, batch.masks[0], valid, batch.num_objects, LossConfig(), ones)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 0.1, foreach=False)
        self.optimizer.step()
        return loss.item()

    def _forward(self, batch: Batch) -> list[MaskPrediction]:
        sam, model = self.model.sam, self.model
        pixels = (batch.images[0].float() - model.channel_mean) / model.channel_std
        features = sam.forward_image(pixels)
        _, levels, _, sizes = sam._prepare_backbone_features(features)  # pyright: ignore[reportPrivateUsage]
        levels = [level[:, batch.object_to_image[0, :, 1]] for level in levels]
        high_res = [
            level.permute(1, 2, 0).unflatten(-1, size) for level, size in zip(levels[:-1], sizes[:-1], strict=True)
        ]
        embedding = (levels[-1] + sam.no_mem_embed).permute(1, 2, 0).unflatten(-1, sizes[-1])
        coords, labels = batch.point_coords[0], batch.point_labels[0]
        passes = [self._heads(embedding, high_res, coords, labels, None)]
        for number in range(self.corrections):
            logits, click = self._click(passes[-1], batch, number)
            coords, labels = torch.cat([coords, click[0]], 1), torch.cat([labels, click[1]], 1)
            passes.append(self._heads(embedding, high_res, coords, labels, logits))
        last = torch.nn.functional.interpolate(
            passes[-1].logits[:, :1].float(), batch.masks.shape[-2:], mode="bilinear", align_corners=False
        )
        sam._encode_new_memory(  # pyright: ignore[reportPrivateUsage]
            current_vision_feats=levels,
            feat_sizes=sizes,
            pred_masks_high_res=last,
            object_score_logits=passes[-1].presence_logits,
            is_mask_from_pts=True,
        )
        return passes

    def _heads(
        self, embedding: Tensor, high_res: list[Tensor], coords: Tensor, labels: Tensor, logits: Tensor | None
    ) -> MaskPrediction:
        masks, _, ious, _, _, _, presence = self.model.sam._forward_sam_heads(  # pyright: ignore[reportPrivateUsage]
            backbone_features=embedding,
            point_inputs={"point_coords": coords, "point_labels": labels},
            mask_inputs=logits,
            high_res_features=high_res,
            multimask_output=labels.shape[1] <= 1,
        )
        return MaskPrediction(masks, ious, presence)

    def _click(self, last: MaskPrediction, batch: Batch, number: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        best = last.ious.argmax(1)
        logits = last.logits[torch.arange(len(best), device=best.device), best][:, None]
        valid = ~batch.ignore[0, batch.object_to_image[0, :, 1]]
        draws = batch.click_draws[0, :, DRAWS_PER_CLICK * number : DRAWS_PER_CLICK * (number + 1)]
        with torch.no_grad():
            shown = torch.nn.functional.interpolate(logits.float(), batch.masks.shape[-2:], mode="bilinear")
            return logits, correction_clicks(shown, batch.masks[0], valid, draws)
