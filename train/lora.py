"""Low-rank adapters by the peft library, trained instead of the layers that they stand beside.

Checkpoints hold them merged into the weights, under Meta's own names, and once more by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from schemas.errors import ConfigError
from train.model import PromptableSam

if TYPE_CHECKING:
    from train.config import LoraConfig

_BASE = ".base_layer."
_MARK = ".lora_"


def add_adapters(model: PromptableSam, config: LoraConfig) -> None:
    """Put adapters into the image encoder's linear layers; of the encoder they alone are trained.

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
    model.sam.image_encoder.requires_grad_(False)
    peft_config = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=chosen)
    inject_adapter_in_model(peft_config, model.sam.image_encoder)


def merged_weights(model: PromptableSam) -> dict[str, Tensor]:
    """The weights under Meta's names, adapters merged in."""
    state = model.sam.state_dict()
    if not any(_MARK in name for name in state):
        return state
    deltas: dict[str, Tensor] = {}
    for name, module in model.sam.named_modules():
        delta = getattr(module, "get_delta_weight", None)
        if delta is not None:
            deltas[f"{name}.weight"] = delta("default")
    merged: dict[str, Tensor] = {}
    for name, weight in state.items():
        if _MARK not in name:
            plain = name.replace(_BASE, ".")
            merged[plain] = weight + deltas[plain].to(weight) if plain in deltas else weight
    return merged


def adapter_state(model: PromptableSam) -> dict[str, Any]:
    """All weights under the adapted names: adapters and the layers that they stand beside."""
    return model.sam.state_dict()


def load_adapters(model: PromptableSam, state: dict[str, Any]) -> None:
    """Take up the state that `adapter_state` gave."""
    model.sam.load_state_dict(state)
