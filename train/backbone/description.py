"""The description of a backbone: every name and number of a network's structure that the rest of `train` asks for.

A backbone is a family of networks that share one structure, such as the sizes of SAM 2.1. All names are those of the
network's own modules and parameters, as in its state dict. Nothing heavy is imported here: the command line reads the
names of the networks when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

LearningRatePart = Literal["vision", "decoder"]
"""Which of the two learning rates a parameter has: that of the image encoder, or that of the rest."""


@dataclass(frozen=True)
class Network:
    """One network of a backbone.

    Attributes:
        config_file: Name of its configuration in the package that builds it.
        overrides: Settings on top of that configuration, in Hydra's form `++model.key=value`.
        trunk_width: Channels of the trunk's first stage, by which its weights are recognized.
        trunk_blocks: Number of blocks of the trunk, by which its weights are recognized.
    """

    config_file: str
    overrides: tuple[str, ...]
    trunk_width: int
    trunk_blocks: int


@dataclass(frozen=True)
class Backbone:
    """The structure that all networks of one family share.

    Attributes:
        networks: The networks by the name that `--model` takes.
        build: Builds a network for an image size in pixels, with random weights, on the CPU, in evaluation mode.
        trained_modules: Modules that fine-tuning trains unless they are frozen.
        trained_vectors: Parameters outside those modules that are trained, too; each is a single vector.
        freeze_presets: Modules that stay as they are, by the name of a preset; a preset names what is still trained.
        encoder: The image encoder.
        trunk: The part of the encoder whose layers learn at falling rates.
        trunk_block: Regular expression of a parameter in a block of the trunk; its group is the block's number.
        patch_embedding: Weight of the trunk's first layer, whose first axis is the trunk's width.
        full_rate: Part of the names of parameters in the trunk that keep the full learning rate.
        norm_classes: Names of the classes whose parameters have no weight decay; biases have none either.
        mask_prompt_layers: Layers that only a mask given as prompt passes.
        presence_head: The head that scores whether an object is there.
        level_strides: Input pixels for each cell, of each feature level from the finest on.
        level_layers: The decoder's own layer for each feature level, None where it has none.
    """

    networks: Mapping[str, Network]
    build: Callable[[Network, int], Any]
    trained_modules: tuple[str, ...]
    trained_vectors: tuple[str, ...]
    freeze_presets: Mapping[str, tuple[str, ...]]
    encoder: str
    trunk: str
    trunk_block: str
    patch_embedding: str
    full_rate: str
    norm_classes: tuple[str, ...]
    mask_prompt_layers: str
    presence_head: str
    level_strides: tuple[int, ...]
    level_layers: tuple[str | None, ...]

    def expand_presets(self, names: Iterable[str]) -> tuple[str, ...]:
        """Replace each name of a preset by the modules that the preset freezes."""
        return tuple(module for name in names for module in self.freeze_presets.get(name, (name,)))

    def learning_rate_part(self, parameter: str) -> LearningRatePart:
        """Return which learning rate a parameter has."""
        return "vision" if parameter.startswith(f"{self.encoder}.") else "decoder"

    def trunk_depth(self, parameters: Iterable[str]) -> int:
        """Count the blocks of the trunk among the names of all parameters."""
        return 1 + max((int(match[1]) for name in parameters if (match := re.match(self.trunk_block, name))), default=0)

    def layers_above(self, parameter: str, depth: int) -> int:
        """Count the layers of the trunk from a parameter's own to the last; 0 for a parameter with the full rate.

        Args:
            parameter: Its name.
            depth: Blocks of the trunk.
        """
        if not parameter.startswith(f"{self.trunk}.") or self.full_rate in parameter:
            return 0
        block = re.match(self.trunk_block, parameter)
        return depth - int(block[1]) if block else depth + 1

    def recognize(self, weights: Mapping[str, Any]) -> str | None:
        """Return the network that a state dict belongs to, by the width and the depth of its trunk."""
        patches = weights.get(self.patch_embedding)
        if patches is None:
            return None
        shape = patches.shape[0], self.trunk_depth(weights)
        return next((name for name, n in self.networks.items() if (n.trunk_width, n.trunk_blocks) == shape), None)
