"""Low-rank adapters by the peft library, trained instead of the layers that they stand beside.

Checkpoints hold them merged into the weights, under Meta's own names, and once more by themselves.
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
    """Put adapters into the image encoder's linear layers; of its trunk they alone are trained.

    Raises:
        ConfigError: peft is not installed, or no layer has such a name.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("--lora", "needs the peft package", "pip install 'bcss-sam2[lora]'") from error
    names = [name for name, module in model.sam.image_encoder.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in names if name.endswith(config.modules)]
    if not chosen:
        raise ConfigError(
            "lora.modules", f"{', '.join(config.modules)} end no linear layer's name", f"as in {names[0]}"
        )
    neck = [parameter for parameter in model.sam.image_encoder.neck.parameters() if parameter.requires_grad]
    model.sam.image_encoder.requires_grad_(False)
    peft_config = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=chosen)
    inject_adapter_in_model(peft_config, model.sam.image_encoder)
    # What the neck does is for --freeze to say.
    for parameter in neck:
        parameter.requires_grad_(True)


@torch.no_grad()
def merged_weights(model: PromptableSam) -> dict[str, Tensor]:
    """The weights under Meta's names, adapters merged in."""
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
    """What a checkpoint holds of a model.

    Returns:
        Under `model` the weights for `build_sam2`. With adapters also `adapter`, their weights as peft names them
        within the image encoder, and `base_layers`, the layers under them, which merged weights do not give back.
    """
    parts = {"model": merged_weights(model)}
    state = model.sam.state_dict()
    adapter = {_adapter_key(name): weight for name, weight in state.items() if _MARK in name}
    if adapter:
        parts |= {"adapter": adapter, "base_layers": {n: w for n, w in state.items() if _BASE in n}}
    return parts


def load_adapted(model: PromptableSam, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Take up what `weights_of` gave of a model with adapters.

    Raises:
        KeyError: A part is absent or of other adapters.
    """
    merged, adapter, base = parts["model"], parts["adapter"], parts["base_layers"]
    state: dict[str, Any] = {}
    for name in model.sam.state_dict():
        state[name] = adapter[_adapter_key(name)] if _MARK in name else base[name] if _BASE in name else merged[name]
    model.sam.load_state_dict(state)


def _adapter_key(name: str) -> str:
    # peft leaves out the adapter's name where it saves one.
    return name.removeprefix("image_encoder.").replace(f".{_NAME}.", ".")
