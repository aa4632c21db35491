"""The description of a backbone: all names and numbers of a network's structure that the rest of `train` uses.

A backbone is a family of networks that share one structure, such as the sizes of SAM 2.1. Modules and parameters have
the names that they have in the network's state dict. This module imports nothing that is slow to import, because the
command line reads the names of the networks when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

LearningRatePart = Literal["vision", "decoder"]
"""The learning rate that a parameter has: "vision" for the image encoder, "decoder" for everything else."""


@dataclass(frozen=True)
class Network:
    """One network of a backbone.

    Attributes:
        config_file: Name of the network's configuration file in the package that builds it.
        overrides: Settings that change that configuration, in Hydra's form `++model.key=value`.
        trunk_width: Number of channels in the trunk's first stage; with `trunk_blocks` it identifies the network.
        trunk_blocks: Number of blocks in the trunk.
    """

    config_file: str
    overrides: tuple[str, ...]
    trunk_width: int
    trunk_blocks: int


@dataclass(frozen=True)
class Backbone:
    """The structure that all networks of one family share.

    Attributes:
        networks: The networks of the family, by the name that `--model` takes.
        build: The function that builds a network for an image size in pixels, with random weights, on the CPU and in
            evaluation mode.
        trained_modules: Names of the modules that fine-tuning trains unless they are frozen.
        trained_vectors: Names of the parameters outside those modules that are also trained; each is one vector.
        memory_modules: Names of the modules that only sequences of frames use and train.
        memory_vectors: Names of the parameters outside those modules that only sequences of frames train.
        mask_pointer: Name of the layer that only masks given in a first frame use.
        freeze_presets: Names of the modules that each preset freezes, by the name of the preset. `decoder_only` and
            `decoder_and_neck` name what is still trained, `memory` and `none` name what is frozen.
        encoder: Name of the image encoder.
        trunk: Name of the encoder's trunk; its learning rate decreases from the last layer to the first.
        trunk_block: Regular expression that matches a parameter in a block of the trunk; its group is the number of
            the block.
        patch_embedding: Name of the weight of the trunk's first layer; the weight's first axis is the trunk's width.
        full_rate: A part of the name of those parameters in the trunk that keep the full learning rate.
        norm_classes: Names of the classes whose parameters have no weight decay; biases have none either.
        mask_prompt_layers: Name of the layers that only a mask prompt uses.
        presence_head: Name of the head that predicts the object score.
        level_strides: Number of input pixels per cell along one axis for each feature level, the finest level first.
        level_layers: Name of the decoder's own layer for each feature level, or None if it has no such layer.
        newer_weights: Names of the weights that an older version of the networks lacks.
    """

    networks: Mapping[str, Network]
    build: Callable[[Network, int], Any]
    trained_modules: tuple[str, ...]
    trained_vectors: tuple[str, ...]
    memory_modules: tuple[str, ...]
    memory_vectors: tuple[str, ...]
    mask_pointer: str
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
    newer_weights: tuple[str, ...] = ()

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of all parameters outside modules that training may change."""
        return (*self.trained_vectors, *self.memory_vectors)

    def expand_presets(self, names: Iterable[str]) -> tuple[str, ...]:
        """Replace each preset name by the names of the modules that the preset freezes; other names stay."""
        return tuple(module for name in names for module in self.freeze_presets.get(name, (name,)))

    def learning_rate_part(self, parameter: str) -> LearningRatePart:
        """Return which learning rate the parameter of this name has."""
        return "vision" if parameter.startswith(f"{self.encoder}.") else "decoder"

    def trunk_depth(self, parameters: Iterable[str]) -> int:
        """Return the number of blocks in the trunk, counted from the names of all parameters."""
        return 1 + max((int(match[1]) for name in parameters if (match := re.match(self.trunk_block, name))), default=0)

    def layers_above(self, parameter: str, depth: int) -> int:
        """Count the layers of the trunk from a parameter's own layer to the last one.

        Args:
            parameter: Name of the parameter.
            depth: Number of blocks in the trunk.

        Returns:
            The number of layers: 1 for the last block, `depth` + 1 for layers before the first block. It is 0 for a
            parameter outside the trunk and for one that keeps the full learning rate.
        """
        if not parameter.startswith(f"{self.trunk}.") or self.full_rate in parameter:
            return 0
        block = re.match(self.trunk_block, parameter)
        return depth - int(block[1]) if block else depth + 1

    def recognize(self, weights: Mapping[str, Any]) -> str | None:
        """Identify the network of a state dict by the width and the depth of its trunk.

        Args:
            weights: The state dict.

        Returns:
            Name of the network, or None if no network of this backbone has such a trunk.
        """
        patches = weights.get(self.patch_embedding)
        if patches is None or not patches.shape:
            return None
        shape = patches.shape[0], self.trunk_depth(weights)
        return next((name for name, n in self.networks.items() if (n.trunk_width, n.trunk_blocks) == shape), None)
