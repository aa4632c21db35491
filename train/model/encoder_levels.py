"""Store the features of a frozen image encoder, which training needs in each epoch, in their smallest exact form.

The encoder returns three levels of 256 channels, at strides 4, 8 and 16. The two finer levels are plain 1x1
convolutions of the trunk's stages, and take nothing from coarser levels. The decoder's `conv_s0` and `conv_s1` reduce
them to 32 and 64 channels. So a level can be stored before its convolution (`trunk`, 96 to 144 channels at stride 4),
after it (`neck`, 256), or, if the decoder's layer is frozen too, after that layer (`decoder`, 32). Each step computes
the layers after the stored form, at little cost. The sizes for one image of 1024 x 1024 px in bfloat16, in MB:

    stride                             4       8      16     sum
    tiny, conv_s0 and conv_s1 trained  12.6   6.3     2.1    21.0
    large, conv_s0 and conv_s1 trained 18.9   8.4     2.1    29.4
    any model, both frozen              4.2   2.1     2.1     8.4
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from train.backbone.description import Backbone

Form = Literal["trunk", "neck", "decoder"]


@dataclass(frozen=True)
class Level:
    """The stored form of one level.

    Attributes:
        stride: Side of a cell in pixels of the input.
        form: Part of the model after which the level is stored.
        channels: Number of channels of that form.
        side: Number of cells along each side.
    """

    stride: int
    form: Form
    channels: int
    side: int

    @property
    def name(self) -> str:
        """Name of the level's array in the feature cache."""
        return f"stride_{self.stride}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, channels: the encoder's own order in memory."""
        return self.side, self.side, self.channels


def smallest_levels(sam: Any, backbone: Backbone, image_size_px: int) -> tuple[Level, ...]:
    """Choose for each level, among the forms that only frozen layers compute, the one with the fewest channels."""
    neck, channels_up = sam.image_encoder.neck, sam.image_encoder.trunk.channel_list[::-1]
    levels: list[Level] = []
    for number, (stride, trunk_channels) in enumerate(zip(backbone.level_strides, channels_up, strict=False)):
        forms: dict[Form, int] = {"neck": neck.d_model}
        if number not in neck.fpn_top_down_levels:
            forms["trunk"] = trunk_channels
        layer = _decoder_layer(sam, backbone, number)
        if layer is not None and not any(parameter.requires_grad for parameter in layer.parameters()):
            forms["decoder"] = layer.out_channels
        form = min(forms, key=forms.__getitem__)
        levels.append(Level(stride, form, forms[form], image_size_px // stride))
    return tuple(levels)


def encode_kept_levels(sam: Any, backbone: Backbone, pixels: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Compute the stored forms, each (B, side, side, C), of normalized images (B, 3, S, S)."""
    stages = sam.image_encoder.trunk(pixels)
    outputs, _ = sam.image_encoder.neck(stages)
    kept: list[Tensor] = []
    for number, level in enumerate(levels):
        layer = _decoder_layer(sam, backbone, number)
        if level.form == "decoder":
            assert layer is not None
            kept.append(layer(outputs[number]))
        else:
            kept.append((stages if level.form == "trunk" else outputs)[number])
    return [values.permute(0, 2, 3, 1) for values in kept]


def completed_levels(sam: Any, backbone: Backbone, kept: Sequence[Tensor], levels: Sequence[Level]) -> list[Tensor]:
    """Complete stored forms to the levels (B, C/8, S/4, S/4), (B, C/4, S/8, S/8) and (B, C, S/16, S/16)."""
    convolutions = sam.image_encoder.neck.convs
    completed: list[Tensor] = []
    for number, (level, values) in enumerate(zip(levels, kept, strict=True)):
        # Autocast rounds a convolution's input to bfloat16 anyway. Without autocast, weights and input are float32.
        found = (values if torch.is_autocast_enabled(values.device.type) else values.float()).permute(0, 3, 1, 2)
        layer = _decoder_layer(sam, backbone, number)
        if level.form == "trunk":
            # The neck lists its convolutions from the coarsest level to the finest.
            found = convolutions[len(convolutions) - 1 - number](found)
        if level.form != "decoder" and layer is not None:
            found = layer(found)
        completed.append(found)
    return completed


def _decoder_layer(sam: nn.Module, backbone: Backbone, number: int) -> Any:
    """Return the decoder's convolution of a level, a `torch.nn.Conv2d`; None if the level has none."""
    name = backbone.level_layers[number]
    return None if name is None else sam.get_submodule(name)
