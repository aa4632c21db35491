"""Build AdamW with SAM 2's parameter groups and layer decay; set learning rates by warm-up and a cosine."""

from __future__ import annotations

import math

import torch
from torch import nn

from train.backbone.description import LearningRatePart
from train.model.promptable import PromptableSam
from train.settings import OptimizerConfig


def make_optimizer(model: PromptableSam, config: OptimizerConfig) -> torch.optim.AdamW:
    """Group the trainable parameters by learning rate and by weight decay.

    Biases and norm layers have no weight decay. A layer of the trunk has its learning rate multiplied by `layer_decay`
    once for each layer above it. The position embedding keeps the full learning rate, as published.

    Args:
        model: The model; its parameters with `requires_grad` are optimized.
        config: Learning rates, layer decay and weight decay.

    Returns:
        The optimizer. Each group has a `name` (`vision` or `decoder`) and a `peak_lr`.
    """
    backbone, undecayed = model.backbone, _undecayed(model)
    parameters = dict(model.sam.named_parameters())
    depth = backbone.trunk_depth(parameters)
    groups: dict[tuple[LearningRatePart, float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            part = backbone.learning_rate_part(name)
            scale = config.layer_decay ** backbone.layers_above(name, depth)
            groups.setdefault((part, scale, id(parameter) not in undecayed), []).append(parameter)
    rates: dict[LearningRatePart, float] = {"vision": config.vision_lr, "decoder": config.lr}
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
        # The fused optimizer runs one kernel for all parameters instead of a loop over them.
        fused=all(p.device.type == "cuda" for parameters in groups.values() for p in parameters),
    )


def schedule_factor(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Return the share of the peak learning rate at a step, counted from 0: a linear rise, then a cosine."""
    warmup = config.warmup_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min((step - warmup) / max(total_steps - warmup - 1, 1), 1.0)
    floor = config.final_lr_fraction
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rates(
    optimizer: torch.optim.Optimizer, step: int, total_steps: int, config: OptimizerConfig
) -> dict[str, float]:
    """Set the learning rates of a step: a linear rise, then a cosine from the peak to a fraction of it.

    Args:
        optimizer: Optimizer from `make_optimizer`.
        step: Number of the step, from 0.
        total_steps: Number of steps in the run.
        config: Settings of the schedule.

    Returns:
        The highest learning rate by group name.
    """
    factor = schedule_factor(step, total_steps, config)
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
        rates[group["name"]] = max(rates.get(group["name"], 0.0), group["lr"])
    return rates


def _undecayed(model: PromptableSam) -> set[int]:
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or type(module).__name__ in model.backbone.norm_classes
    }
