"""SAM 2 as a promptable image model: Meta's modules, called with explicit prompts.

Only what a single image needs is run: image encoder, prompt encoder and mask decoder. Memory encoder and memory
attention stay in the state dict, so that Meta's code loads it, but are neither run nor trained.
Axes: T frames (1), B images, O objects, N objects of one decoder pass, M candidate masks, K points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._dynamo import mark_static
from torch.utils.checkpoint import checkpoint

from schemas.errors import ConfigError
from train.choices import FREEZE_PRESETS, ModelSize
from train.data.collate import Batch
from train.data.training_clicks import DRAWS_PER_CLICK, correction_clicks
from train.loss.pixel_terms import upsample
from train.loss.prediction import GroupPrediction, MaskPrediction
from train.model.encoder_levels import Level, completed_levels, kept_levels, smallest_levels
from train.model.sam2 import build_base

# Mean and standard deviation of ImageNet's RGB channels, which SAM 2 was trained with.
_CHANNEL_MEAN = (0.485, 0.456, 0.406)
_CHANNEL_STD = (0.229, 0.224, 0.225)

COMPILED_FORMS = 32
"""How often a part may be compiled for other sizes before torch gives up and runs it as it is."""

_TRAINED_MODULES = ("image_encoder", "sam_prompt_encoder", "sam_mask_decoder")


@dataclass(frozen=True)
class ImageFeatures:
    """What the image encoder gives for B images of side S.

    Attributes:
        embedding: (B, 256, S/16, S/16).
        high_res: (B, 32, S/4, S/4) and (B, 64, S/8, S/8), for the decoder's last steps.
    """

    embedding: Tensor
    high_res: tuple[Tensor, Tensor]

    def of_objects(self, image_index: Tensor) -> ImageFeatures:
        """Gather the features of each object's image, given by int64 (N,)."""
        fine, middle = self.high_res
        return ImageFeatures(
            _gathered(self.embedding, image_index), (_gathered(fine, image_index), _gathered(middle, image_index))
        )


def _gathered(values: Tensor, places: Tensor) -> Tensor:
    # So that gradients of one image are added in one order: for an index in brackets threads of a CPU add them in any,
    # and for this call those of a GPU.
    return values.index_select(0, places) if values.device.type == "cpu" else values[places]


class PromptableSam(nn.Module):
    """SAM 2 with explicit prompts on single images.

    Args:
        size: Which of Meta's four models.
        image_size: Side of the input in pixels, a multiple of 32.
        corrections: Clicks on the error that follow the first prompt in training mode.
    """

    channel_mean: Tensor
    channel_std: Tensor

    def __init__(self, size: ModelSize, image_size: int, corrections: int = 0) -> None:
        super().__init__()
        self.corrections = corrections
        self.size: ModelSize = size
        self.image_size = image_size
        self.sam = build_base(size, image_size)
        self.register_buffer("channel_mean", torch.tensor(_CHANNEL_MEAN)[:, None, None] * 255, persistent=False)
        self.register_buffer("channel_std", torch.tensor(_CHANNEL_STD)[:, None, None] * 255, persistent=False)
        self._frozen: tuple[nn.Module, ...] = ()
        self._compiled = False
        self.requires_grad_(False)
        for name in _TRAINED_MODULES:
            self.sam.get_submodule(name).requires_grad_(True)
        self.sam.no_mem_embed.requires_grad_(True)
        # Only a mask given as prompt passes it, so without correction clicks it would never see a gradient.
        self.sam.sam_prompt_encoder.mask_downscaling.requires_grad_(corrections > 0)

    def freeze(self, names: tuple[str, ...]) -> None:
        """Freeze modules of SAM 2 by name: no gradient, and evaluation mode in training too.

        Raises:
            ConfigError: There is no such module.
        """
        modules: list[nn.Module] = []
        for name in names:
            if name == "no_mem_embed":
                self.sam.no_mem_embed.requires_grad_(False)
                continue
            try:
                modules.append(self.sam.get_submodule(name))
            except AttributeError as error:
                choices = ", ".join((*FREEZE_PRESETS, *_TRAINED_MODULES))
                raise ConfigError(f"--freeze {name}", "is no module of SAM 2", f"use one of {choices}") from error
            modules[-1].requires_grad_(False)
        self._frozen = tuple(modules)
        # The stand-in for an empty memory is a single vector, and nobody means to train that alone.
        if not any(p.requires_grad for p in self.parameters() if p is not self.sam.no_mem_embed):
            raise ConfigError("--freeze", "leaves nothing to train", "freeze fewer modules")
        self.train(self.training)

    def train(self, mode: bool = True) -> PromptableSam:
        """Set the mode of all modules but the frozen ones."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def encode(self, images: Tensor) -> ImageFeatures:
        """Encode images (B, 3, S, S) from 0 to 255."""
        # Asked anew each time, since adapters may be added after modules were frozen.
        trained = any(parameter.requires_grad for parameter in self.sam.image_encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            levels = self._called(self.sam.image_encoder)(self._normalized(images))["backbone_fpn"]
        # What Meta's `forward_image` does too; kept apart here, since these two layers belong to the decoder and are
        # trained where the encoder is frozen.
        decoder = self.sam.sam_mask_decoder
        return self._features(decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1]), levels[2])

    @property
    def kept_levels(self) -> tuple[Level, ...]:
        """What is worth keeping of a frozen image encoder; asked anew each time, as in `encode`."""
        return smallest_levels(self.sam, self.image_size)

    def encode_kept(self, images: Tensor) -> list[Tensor]:
        """Encode images (B, 3, S, S) from 0 to 255 up to `kept_levels`, without gradient."""
        with torch.no_grad():
            return kept_levels(self.sam, self._normalized(images), self.kept_levels)

    def encode_from(self, kept: Sequence[Tensor]) -> ImageFeatures:
        """Go on from what `encode_kept` gave, with a gradient for what is trained of the rest."""
        fine, middle, coarse = completed_levels(self.sam, kept, self.kept_levels)
        return self._features(fine, middle, coarse)

    def _normalized(self, images: Tensor) -> Tensor:
        return (images.float() - self.channel_mean) / self.channel_std

    def _features(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> ImageFeatures:
        # Meta's image predictor adds this learned stand-in for an empty memory, too.
        return ImageFeatures(coarse + self.sam.no_mem_embed.reshape(1, -1, 1, 1), (fine, middle))

    def decode(
        self, features: ImageFeatures, coords: Tensor, labels: Tensor, mask_logits: Tensor | None = None
    ) -> MaskPrediction:
        """Decode one prompt an object.

        One click leaves open what is meant, so up to one point gives three candidates, as in SAM 2; more give one.
        The object score is returned and not applied: in training it would replace the masks of objects that the
        model misses by a constant, through which no gradient flows.

        Args:
            features: Of each object's image, N rows.
            coords: float32 (N, K, 2) as x, y of pixel centres, without padding.
            labels: int32 (N, K).
            mask_logits: (N, 1, S/4, S/4), the logits of a previous pass.
        """
        prompt_encoder = self.sam.sam_prompt_encoder
        sparse, dense = prompt_encoder(points=(coords, labels), boxes=None, masks=mask_logits)
        if self._compiled:
            for given in (sparse, dense, features.embedding, *features.high_res):
                mark_static(given, list(range(1, given.dim())))
        logits, ious, _, presence = self._called(self.sam.sam_mask_decoder)(
            image_embeddings=features.embedding,
            image_pe=prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=labels.shape[1] <= 1,
            repeat_image=False,
            high_res_features=list(features.high_res),
        )
        return MaskPrediction(logits, ious, presence)

    def forward(self, batch: Batch, images: Tensor | None = None) -> list[GroupPrediction]:
        """Predict the masks of a batch, group by group.

        Args:
            batch: The batch.
            images: (B, 3, S, S) from 0 to 255 instead of the batch's own, after colour augmentation; not looked at
                where the batch has features.

        Raises:
            ConfigError: The batch has more than one frame.
        """
        frames = batch.images.shape[0]
        if frames != 1:
            raise ConfigError(f"a batch of {frames} frames", "is a video, and this trains on images", "use T = 1")
        if batch.features is not None:
            features = self.encode_from([level[0] for level in batch.features])
        else:
            features = self.encode(batch.images[0] if images is None else images)
        predictions: list[GroupPrediction] = []
        for group in batch.groups:
            objects = group.objects
            image_index = batch.object_to_image[0, objects, 1]
            labels = batch.point_labels[0, objects]
            # A stable sort brings the real points to the front in their order, and the padding is cut off.
            order = (labels < 0).to(torch.int8).argsort(dim=1, stable=True)[:, : group.count]
            coords = batch.point_coords[0, objects].gather(1, order[..., None].expand(-1, -1, 2))
            prompt = coords, labels.gather(1, order)
            passes = self._passes(features.of_objects(image_index), prompt, batch, objects)
            predictions.append(GroupPrediction(objects, passes))
        return predictions

    def _passes(
        self, features: ImageFeatures, prompt: tuple[Tensor, Tensor], batch: Batch, objects: Tensor
    ) -> tuple[MaskPrediction, ...]:
        """Decode the first prompt, then in training one more click at a time, each with the best logits so far."""
        coords, labels = prompt
        passes = [self.decode(features, coords, labels)]
        if not self.corrections or not self.training:
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
            passes.append(self.decode(features, coords, labels, logits))
        return tuple(passes)

    def compile_parts(self) -> None:
        """Compile image encoder and mask decoder in place, for training; their parameters keep their names."""
        encoder = self.sam.image_encoder
        # It keeps positions by size once it has met one; met first while it is traced, they make it be traced again.
        with torch.no_grad():
            encoder.forward(self._normalized(self.channel_mean.expand(1, 3, self.image_size, self.image_size)))
        # A last batch that is smaller gets code of its own, lest full ones lose theirs to code for any size.
        encoder.compile(dynamic=False)
        # For any number of objects, and for each number of points anew: with that left open, too, torch 2.14 makes code
        # that trips over the strides of the first. Box and click, first prompt and correction, and a batch of one
        # object are more forms than torch expects of one module.
        limits = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
        limits.cache_size_limit = max(limits.cache_size_limit, COMPILED_FORMS)
        self.sam.sam_mask_decoder.compile(dynamic=True)
        self._compiled = True

    def _called(self, part: nn.Module) -> Callable[..., Any]:
        """Call a part as it was compiled in training alone: what validation asks is of other sizes."""
        return part.forward if self._compiled and not self.training else part

    def checkpoint_activations(self) -> None:
        """Keep only what goes into each block of the trunk, and compute the rest anew in the backward pass.

        The same gradients to the bit, from less memory and one more forward pass.
        Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
        """
        for block in cast("list[nn.Module]", self.sam.image_encoder.trunk.blocks):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
