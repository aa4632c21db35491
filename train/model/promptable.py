"""Run SAM 2 as a promptable image model: call Meta's modules with explicit prompts.

Only the parts for single images run here: image encoder, prompt encoder and mask decoder. Memory encoder and memory
attention stay in the state dict, so that Meta's code can load it. `train.model.memory` runs them for several frames.
Axes: B images, N objects of one decoder pass, M candidate masks, K points, S side of the input in pixels, C width of
the decoder (256 in Meta's networks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from schemas.errors import ConfigError
from train.backbone.catalog import ModelSize, backbone_of
from train.loss.prediction import MaskPrediction
from train.model.acceleration import begin_recorded_call, compile_parts, fix_all_but_rows
from train.model.encoder_levels import Level, completed_levels, encode_kept_levels, smallest_levels

CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB channels; SAM 2 normalizes images with them."""


@dataclass(frozen=True)
class ImageFeatures:
    """Features that the image encoder computes for B images.

    Attributes:
        embedding: (B, C, S/16, S/16), the image embedding.
        high_res: (B, C/8, S/4, S/4) and (B, C/4, S/8, S/8), finer features for the last steps of the decoder.
    """

    embedding: Tensor
    high_res: tuple[Tensor, Tensor]

    def of_objects(self, image_index: Tensor) -> ImageFeatures:
        """Return the features of each object's image; `image_index`, int64 (N,), is the number of that image."""
        fine, middle = self.high_res
        return ImageFeatures(
            _gathered(self.embedding, image_index), (_gathered(fine, image_index), _gathered(middle, image_index))
        )

    def by_frame(self, frames: int) -> list[ImageFeatures]:
        """Divide the features of T frames of B images, T B rows, into T times B rows.

        The gradient of a frame then has the size of that frame, and not of all frames.
        """
        levels = (self.embedding, *self.high_res)
        coarse, fine, middle = (level.unflatten(0, (frames, -1)).unbind() for level in levels)
        return [ImageFeatures(*parts) for parts in zip(coarse, zip(fine, middle, strict=True), strict=True)]


def _gathered(values: Tensor, places: Tensor) -> Tensor:
    # Gradients of one image must be added in a fixed order. On a CPU, indexing in brackets adds them in any order; on a
    # GPU, `index_select` does. So each device uses the other call.
    return values.index_select(0, places) if values.device.type == "cpu" else values[places]


class PromptableSam(nn.Module):
    """SAM 2 with explicit prompts on single images.

    Args:
        size: Name of the network.
        image_size: Side of the input in pixels, a multiple of 32.
        mask_prompts: Whether training gives masks as prompts. Without them, the layers that embed a mask get no
            gradient, so they are frozen.
        memory: Whether training sees several frames. Without them, the memory is frozen.
    """

    channel_mean: Tensor
    channel_std: Tensor

    def __init__(self, size: ModelSize, image_size: int, *, mask_prompts: bool = False, memory: bool = False) -> None:
        super().__init__()
        self.size: ModelSize = size
        self.image_size = image_size
        self.backbone = backbone_of(size)
        self.sam = self.backbone.build(self.backbone.networks[size], image_size)
        self.register_buffer("channel_mean", torch.tensor(CHANNEL_MEAN)[:, None, None] * 255, persistent=False)
        self.register_buffer("channel_std", torch.tensor(CHANNEL_STD)[:, None, None] * 255, persistent=False)
        self._frozen: tuple[nn.Module, ...] = ()
        self._compiled = False
        self._recorded = False
        self.requires_grad_(False)
        for name in (*self.backbone.trained_modules, *(self.backbone.memory_modules if memory else ())):
            self.sam.get_submodule(name).requires_grad_(True)
        for name in self.backbone.vectors if memory else self.backbone.trained_vectors:
            self.sam.get_parameter(name).requires_grad_(True)
        self.sam.get_submodule(self.backbone.mask_prompt_layers).requires_grad_(mask_prompts)

    def freeze(self, names: tuple[str, ...]) -> None:
        """Freeze modules of SAM 2: they get no gradient, and stay in evaluation mode during training.

        Args:
            names: Names of modules within SAM 2.

        Raises:
            ConfigError: No module has such a name, or nothing is left to train.
        """
        vectors = {name: self.sam.get_parameter(name) for name in self.backbone.vectors}
        modules: list[nn.Module] = []
        for name in names:
            if name in vectors:
                vectors[name].requires_grad_(False)
                continue
            try:
                modules.append(self.sam.get_submodule(name))
            except AttributeError as error:
                choices = ", ".join((*self.backbone.freeze_presets, *self.backbone.trained_modules))
                raise ConfigError(f"--freeze {name}", "names no module of SAM 2", f"use one of {choices}") from error
            modules[-1].requires_grad_(False)
        self._frozen = tuple(modules)
        # Training only a single vector cannot be intended.
        alone = {id(vector) for vector in vectors.values()}
        if not any(p.requires_grad for p in self.parameters() if id(p) not in alone):
            raise ConfigError("--freeze", "leaves nothing to train", "freeze fewer modules")
        self.train(self.training)

    def trained_parts(self) -> dict[str, int]:
        """Count the parameters that train by part of SAM 2; all parts that only frames use are the part `memory`."""
        memory = (*self.backbone.memory_modules, *self.backbone.memory_vectors)
        counts = dict.fromkeys((*self.backbone.trained_modules, *self.backbone.trained_vectors, "memory"), 0)
        for name, parameter in self.sam.named_parameters():
            if parameter.requires_grad:
                part = name.partition(".")[0]
                counts["memory" if part in memory else part] += parameter.numel()
        return {part: count for part, count in counts.items() if count}

    def train(self, mode: bool = True) -> PromptableSam:
        """Set the mode of all modules except the frozen ones and the memory attention, which has dropout.

        The model draws no random number in training, so that a step depends on its data and weights alone.
        """
        super().train(mode)
        for module in (*self._frozen, self.sam.memory_attention):
            module.eval()
        return self

    def encode(self, images: Tensor) -> ImageFeatures:
        """Encode images, uint8 or float (B, 3, S, S) with values from 0 to 255."""
        return self._features(*self.encode_levels(images))

    def encode_frames(self, images: Tensor) -> ImageFeatures:
        """Encode images like `encode`, but without the embedding of an empty memory; `FrameMemory` adds the memory."""
        fine, middle, coarse = self.encode_levels(images)
        return ImageFeatures(coarse, (fine, middle))

    def encode_levels(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images to what the decoder takes, from the finest level to the coarsest.

        Returns:
            (B, C/8, S/4, S/4), (B, C/4, S/8, S/8) and (B, C, S/16, S/16); C is 256 in Meta's networks and 64 in `nano`.
        """
        # Look this up in each call, because adapters may be added after modules were frozen.
        trained = any(parameter.requires_grad for parameter in self.sam.image_encoder.parameters())
        if self._recorded and self.training:
            begin_recorded_call()
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            levels = self._called(self.sam.image_encoder)(self._normalized(images))["backbone_fpn"]
        # Meta's `forward_image` calls these two layers too. They belong to the decoder, so they are called here,
        # outside the block above: they get a gradient even if the encoder is frozen.
        decoder = self.sam.sam_mask_decoder
        return decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1]), levels[2]

    @property
    def kept_levels(self) -> tuple[Level, ...]:
        """The forms in which a frozen image encoder's features are stored; they depend on what is frozen now."""
        return smallest_levels(self.sam, self.backbone, self.image_size)

    def encode_kept(self, images: Tensor) -> list[Tensor]:
        """Encode images (B, 3, S, S) with values from 0 to 255 to the forms of `kept_levels`, without a gradient."""
        with torch.no_grad():
            return encode_kept_levels(self.sam, self.backbone, self._normalized(images), self.kept_levels)

    def encode_from(self, kept: Sequence[Tensor]) -> ImageFeatures:
        """Complete the output of `encode_kept`, with a gradient for the trained layers that follow."""
        fine, middle, coarse = completed_levels(self.sam, self.backbone, kept, self.kept_levels)
        return self._features(fine, middle, coarse)

    def _normalized(self, images: Tensor) -> Tensor:
        return (images.float() - self.channel_mean) / self.channel_std

    def _features(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> ImageFeatures:
        # Like Meta's image predictor, add the learned embedding that stands for an empty memory.
        return ImageFeatures(coarse + self.sam.no_mem_embed.reshape(1, -1, 1, 1), (fine, middle))

    def decode(
        self,
        features: ImageFeatures,
        coords: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> MaskPrediction:
        """Decode one prompt per object.

        A single click is ambiguous, so a prompt of at most one point gives three candidate masks, as in SAM 2. A longer
        prompt gives one. The object score is returned, but not applied to the masks: in training it would replace the
        masks of objects that the model misses by a constant, through which no gradient flows.

        Args:
            features: Features of each object's image, N rows.
            coords: float32 (N, K, 2), x and y of pixel centers, without padding.
            labels: int32 (N, K), SAM 2's point codes.
            mask_logits: (N, 1, S/4, S/4), mask logits of a previous pass as an additional prompt; None gives none.
            has_mask: bool (N,), the objects that get their mask as a prompt; None gives it to all.

        Returns:
            Mask logits (N, M, S/4, S/4), IoU estimates (N, M) and object scores (N, 1).
        """
        prompt_encoder = self.sam.sam_prompt_encoder
        sparse, dense = prompt_encoder(points=(coords, labels), boxes=None, masks=mask_logits)
        if has_mask is not None:
            without = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
            dense = torch.where(has_mask[:, None, None, None], dense, without)
        if self._compiled:
            fix_all_but_rows(sparse, dense, features.embedding, *features.high_res)
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

    def compile_parts(self) -> None:
        """Compile image encoder and mask decoder in place for training; see `train.model.acceleration`."""
        self._recorded = compile_parts(self.sam, self.image_size)
        self._compiled = True

    def _called(self, part: nn.Module) -> Callable[..., Any]:
        """Return the compiled part in training, and the plain one in evaluation, where sizes vary."""
        return part.forward if self._compiled and not self.training else part
