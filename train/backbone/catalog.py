"""The networks that `--model` offers, and the backbone that each of them belongs to."""

from __future__ import annotations

from typing import Literal, get_args

from train.backbone.description import Backbone
from train.backbone.sam2 import SAM2

ModelSize = Literal["nano", "tiny", "small", "base_plus", "large"]
MODEL_SIZES: tuple[ModelSize, ...] = get_args(ModelSize)

_BACKBONES: tuple[Backbone, ...] = (SAM2,)


def backbone_of(size: ModelSize) -> Backbone:
    """Return the backbone that a network belongs to."""
    return next(backbone for backbone in _BACKBONES if size in backbone.networks)
