"""AdamW with the published groups, layer decay, and the warm-up and cosine of the learning rate."""

from __future__ import annotations

import math
import re

import torch
from torch import nn

from train.model.promptable import PromptableSam
from train.settings import OptimizerConfig

_TRUNK_BLOCK = re.compile(r"sam\.image_encoder\.trunk\.blocks\.(\d+)\.")


def make_optimizer(model: PromptableSam, config: OptimizerConfig) -> torch.optim.AdamW:
    """Group the trainable parameters by learning rate and by weight decay.

    Biases and the parameters of norm layers are not decayed. In the trunk a layer's rate falls by `layer_decay` with
    each layer above it; the embedding of positions keeps the full rate, as published.
    """
    undecayed = _undecayed(model)
    depth = 1 + max(
        (int(match[1]) for name, _ in model.named_parameters() if (match := _TRUNK_BLOCK.match(name))), default=0
    )
    groups: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "vision" if "image_encoder" in name else "decoder"
            scale = config.layer_decay ** _layers_above(name, depth)
            groups.setdefault((part, scale, id(parameter) not in undecayed), []).append(parameter)
    rates = {"vision": config.vision_lr, "decoder": config.lr}
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decays else 0.0,
                "name": part,
                "peak_lr": rates[part] * scale,
                "lr": rates[part] * scale,
            }
            for (part, scale, decays), parameters in groups.items()
        ],
        # One kernel for all parameters instead of a loop over them.
        fused=all(p.device.type == "cuda" for parameters in groups.values() for p in parameters),
    )


def set_learning_rates(
    optimizer: torch.optim.Optimizer, step: int, total_steps: int, config: OptimizerConfig
) -> dict[str, float]:
    """Set the rates for a step: a linear rise, then a cosine from the peak to a fraction of it.

    Args:
        optimizer: From `make_optimizer`.
        step: From 0.
        total_steps: Steps of the run.
        config: The schedule.

    Returns:
        The highest rate of each group name.
    """
    warmup = config.warmup_steps
    if step < warmup:
        factor = (step + 1) / (warmup + 1)
    else:
        progress = min((step - warmup) / max(total_steps - warmup - 1, 1), 1.0)
        floor = config.final_lr_fraction
        factor = floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
        rates[group["name"]] = max(rates.get(group["name"], 0.0), group["lr"])
    return rates


def _undecayed(model: PromptableSam) -> set[int]:
    norms = (nn.LayerNorm, nn.GroupNorm)
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or isinstance(module, norms) or type(module).__name__ == "LayerNorm2d"
    }


def _layers_above(name: str, depth: int) -> int:
    """How many layers of the trunk lie between a parameter and the trunk's end, itself included."""
    if not name.startswith("sam.image_encoder.trunk.") or "pos_embed" in name:
        return 0
    block = _TRUNK_BLOCK.match(name)
    return depth - int(block[1]) if block else depth + 1
