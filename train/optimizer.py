"""AdamW with the published groups, and the cosine schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from train.config import FitConfig
from train.model import PromptableSam


def make_optimizer(model: PromptableSam, config: FitConfig) -> torch.optim.AdamW:
    """Group the trainable parameters by learning rate (`vision` or `decoder`) and by weight decay.

    Biases and the parameters of norm layers are not decayed.
    """
    norms = (nn.LayerNorm, nn.GroupNorm)
    undecayed = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or isinstance(module, norms) or type(module).__name__ == "LayerNorm2d"
    }
    encoder = {id(parameter) for parameter in model.sam.image_encoder.parameters()}
    groups: list[dict[str, object]] = []
    for name, peak in (("vision", config.vision_lr), ("decoder", config.lr)):
        for decays in (True, False):
            parameters = [
                parameter
                for parameter in model.parameters()
                if parameter.requires_grad
                and (id(parameter) in encoder) == (name == "vision")
                and (id(parameter) not in undecayed) == decays
            ]
            if parameters:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": parameters, "weight_decay": decay, "name": name, "peak_lr": peak, "lr": peak})
    return torch.optim.AdamW(groups)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, step: int, total_steps: int, final_fraction: float
) -> dict[str, float]:
    """Set the rates for a step of a cosine from the peak to a fraction of it.

    Args:
        optimizer: From `make_optimizer`.
        step: From 0.
        total_steps: Steps of the run.
        final_fraction: Share of the peak at the end.

    Returns:
        The rate of each group name.
    """
    progress = step / max(total_steps - 1, 1)
    factor = final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
