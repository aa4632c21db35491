"""Train low-rank adapters of the peft library instead of the layers that they are added to.

Checkpoints hold the merged weights under Meta's own names, and also the adapters alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from schemas.errors import ConfigError
from train.model.promptable import PromptableSam

if TYPE_CHECKING:
    from train.settings import LoraConfig

_BASE = ".base_layer."
_MARK = ".lora_"
_NAME = "default"


def add_adapters(model: PromptableSam, config: LoraConfig) -> None:
    """Add adapters to linear layers of the image encoder, and freeze the rest of its trunk.

    Args:
        model: The model; it is changed.
        config: Rank and scale of the adapters, and the layers that get one.

    Raises:
        ConfigError: peft is not installed, or no layer has such a name.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("--lora", "needs the peft package", "pip install 'bcss-sam2[lora]'") from error
    backbone = model.backbone
    encoder = model.sam.get_submodule(backbone.encoder)
    names = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in names if name.endswith(config.modules)]
    if not chosen:
        raise ConfigError(
            "lora.modules",
            f"no linear layer has a name that ends in {' or '.join(config.modules)}",
            f"choose the end of a name such as {names[0]}",
        )
    in_trunk = {id(parameter) for parameter in model.sam.get_submodule(backbone.trunk).parameters()}
    others = [p for p in encoder.parameters() if p.requires_grad and id(p) not in in_trunk]
    encoder.requires_grad_(False)
    peft_config = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=chosen)
    inject_adapter_in_model(peft_config, encoder)
    # --freeze decides whether the rest of the encoder, its neck, is trained.
    for parameter in others:
        parameter.requires_grad_(True)


@torch.no_grad()
def merged_weights(model: PromptableSam) -> dict[str, Tensor]:
    """Return the weights under Meta's names, with adapters merged in."""
    state = model.sam.state_dict()
    if not any(_MARK in name for name in state):
        return state
    deltas: dict[str, Tensor] = {}
    for name, module in model.sam.named_modules():
        delta = getattr(module, "get_delta_weight", None)
        if delta is not None:
            deltas[f"{name}.weight"] = delta(_NAME)
    merged: dict[str, Tensor] = {}
    for name, weight in state.items():
        if _MARK not in name:
            plain = name.replace(_BASE, ".")
            merged[plain] = weight + deltas[plain].to(weight) if plain in deltas else weight
    return merged


def weights_of(model: PromptableSam) -> dict[str, dict[str, Tensor]]:
    """Return the weights of a model, as a checkpoint holds them.

    Returns:
        `model` has the weights for `build_sam2`. With adapters, `adapter` has their weights under peft's names within
        the image encoder, and `base_layers` has the original weights of their layers, which cannot be computed from
        the merged weights.
    """
    parts = {"model": merged_weights(model)}
    state = model.sam.state_dict()
    adapter = {_adapter_key(model, name): weight for name, weight in state.items() if _MARK in name}
    if adapter:
        parts |= {"adapter": adapter, "base_layers": {n: w for n, w in state.items() if _BASE in n}}
    return parts


def load_adapted(model: PromptableSam, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Load the weights that `weights_of` returned for a model with adapters.

    Args:
        model: The model, with adapters of the same rank and modules.
        parts: `model`, `adapter` and `base_layers` from `weights_of`.

    Raises:
        KeyError: A part is absent, or belongs to other adapters.
    """
    merged, adapter, base = parts["model"], parts["adapter"], parts["base_layers"]
    state: dict[str, Any] = {}
    for name in model.sam.state_dict():
        if _MARK in name:
            state[name] = adapter[_adapter_key(model, name)]
        else:
            state[name] = base[name] if _BASE in name else merged[name]
    model.sam.load_state_dict(state)


def _adapter_key(model: PromptableSam, name: str) -> str:
    # peft leaves the adapter's name out of the keys that it saves.
    return name.removeprefix(f"{model.backbone.encoder}.").replace(f".{_NAME}.", ".")
