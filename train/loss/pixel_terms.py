"""Compute focal loss, Dice loss and true IoU of masks, without keeping full-resolution maps for the backward pass.

If these terms are written as one operation after another under autograd, about ten float32 maps at the resolution of
the targets are kept until the backward pass. Here the forward pass computes only sums. The backward pass upsamples the
logits again and applies the derivatives. Each pass is one function over pixels, which `torch.compile` turns into one
kernel.

Axes: N objects, M candidate masks, h and w pixels of the logits, H and W pixels of the targets, P = H W.
Sources: Lin et al., Focal Loss for Dense Object Detection, 2017, equation 5; Milletari et al., V-Net, 2016, equation 3,
with unsquared terms and a smoothing of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class MaskTerms:
    """The loss terms of masks, each float32 (N, M), or (N,) for one mask per object.

    Attributes:
        focal: Mean focal loss over the pixels that count.
        dice: Dice loss over the pixels that count.
        iou: True IoU of the mask with its target, over the pixels that count.
        overlap: Sum of the probabilities inside the target.
        size: Sum of all probabilities plus the number of target pixels.
    """

    focal: Tensor
    dice: Tensor
    iou: Tensor
    overlap: Tensor
    size: Tensor

    def of(self, candidate: Tensor) -> MaskTerms:
        """Select one candidate per object, given by its index, int64 (N,); every term becomes (N,)."""
        return MaskTerms(*(getattr(self, field.name).gather(1, candidate[:, None])[:, 0] for field in fields(self)))


@dataclass(frozen=True)
class Kernels:
    """The two functions over pixels.

    Attributes:
        sums: `pixel_sums`, or its compiled form.
        gradient: `pixel_gradient`, or its compiled form.
    """

    sums: Callable[..., tuple[Tensor, ...]]
    gradient: Callable[..., Tensor]


@torch.no_grad()
def mask_terms(
    logits: Tensor, truth: Tensor, inside: Tensor, alpha: float, gamma: float, kernels: Kernels
) -> MaskTerms:
    """Compute the terms of all candidate masks, without a gradient.

    Args:
        logits: The candidate masks, (N, M, h, w); they are upsampled to the targets' resolution in float32.
        truth: The target masks, bool (N, H, W); false where a pixel does not count.
        inside: The pixels that count, bool (N, H, W).
        alpha: Weight of positive pixels in the focal loss, between 0 and 1; a negative number means no weighting.
        gamma: Exponent of the focal loss; the larger it is, the more the hard pixels weigh.
        kernels: The functions that sum over pixels.

    Returns:
        The terms, each float32 (N, M).
    """
    truth_pixels, inside_pixels = truth.flatten(1), inside.flatten(1)
    # Upsample one candidate at a time, so that memory holds one map per object at full resolution instead of three.
    sums = [
        kernels.sums(upsample(mask[:, None], *truth.shape[-2:]).flatten(1), truth_pixels, inside_pixels, alpha, gamma)
        for mask in logits.unbind(1)
    ]
    focal, overlap, area, intersection, union = (torch.stack(values, 1) for values in zip(*sums, strict=True))
    size = area + truth_pixels.sum(1, keepdim=True)
    return MaskTerms(
        focal / inside_pixels.sum(1, keepdim=True).clamp(min=1),
        1 - (2 * overlap + 1) / (size + 1),
        intersection / union.clamp(min=1),
        overlap,
        size,
    )


def with_gradient(
    terms: MaskTerms, logits: Tensor, truth: Tensor, inside: Tensor, alpha: float, gamma: float, kernels: Kernels
) -> tuple[Tensor, Tensor]:
    """Attach to the focal and Dice terms of one mask per object their gradient with respect to the mask's logits.

    Args:
        terms: The terms of the masks, each (N,), as `mask_terms` computed them.
        logits: The logits of the masks, (N, h, w).
        truth: See `mask_terms`.
        inside: See `mask_terms`.
        alpha: See `mask_terms`.
        gamma: See `mask_terms`.
        kernels: See `mask_terms`.

    Returns:
        The focal terms and the Dice terms, each float32 (N,), with a gradient.
    """
    return _Differentiable.apply(logits, truth, inside, terms, (alpha, gamma), kernels)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        truth: Tensor,
        inside: Tensor,
        terms: MaskTerms,
        focus: tuple[float, float],
        kernels: Kernels,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, truth, inside, terms.overlap, terms.size)
        ctx.focus, ctx.kernels = focus, kernels
        return terms.focal.clone(), terms.dice.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, focal_grad: Tensor, dice_grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        logits, truth, inside, overlap, size = ctx.saved_tensors
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            full = upsample(leaf[:, None], *truth.shape[-2:])
        full_grad = ctx.kernels.gradient(
            full.detach()[:, 0].flatten(1),
            truth.flatten(1),
            inside.flatten(1),
            focal_grad / inside.flatten(1).sum(1).clamp(min=1),
            # Derivatives of the Dice loss 1 - (2 overlap + 1) / (size + 1) with respect to overlap and size.
            -2 * dice_grad / (size + 1),
            dice_grad * (2 * overlap + 1) / (size + 1).square(),
            *ctx.focus,
        )
        (gradient,) = torch.autograd.grad(full, leaf, full_grad.reshape(full.shape))
        return gradient, None, None, None, None, None


def pixel_sums(
    logits: Tensor, truth: Tensor, inside: Tensor, alpha: float, gamma: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sum the parts of the loss terms over the pixels that count.

    Args:
        logits: The logits of one mask per object, float32 (N, P); below, p is their sigmoid.
        truth: The target masks t, bool (N, P); false where a pixel does not count.
        inside: The pixels that count, bool (N, P).
        alpha: See `mask_terms`.
        gamma: See `mask_terms`.

    Returns:
        The sums of the focal loss, of p t and of p, and the numbers of pixels in the intersection and in the union of
        mask and target; each float32 (N,).
    """
    signed = torch.where(truth, -logits, logits)
    # `missed` is |t - p|, the sigmoid of the signed logit. The cross entropy is the softplus of the same logit.
    missed = signed.sigmoid() * inside
    focal = F.softplus(signed) * missed**gamma * inside
    predicted = (logits > 0) & inside
    missed_truth = (missed * truth).sum(1)
    overlap = truth.sum(1) - missed_truth
    return (
        _balanced(focal.sum(1), (focal * truth).sum(1), alpha),
        overlap,
        overlap + missed.sum(1) - missed_truth,
        (predicted & truth).sum(1).float(),
        (predicted | truth).sum(1).float(),
    )


def pixel_gradient(
    logits: Tensor,
    truth: Tensor,
    inside: Tensor,
    focal_factor: Tensor,
    overlap_factor: Tensor,
    size_factor: Tensor,
    alpha: float,
    gamma: float,
) -> Tensor:
    """Compute the derivative of `focal_factor` focal + `overlap_factor` p t + `size_factor` p by the logits.

    Args:
        logits: See `pixel_sums`.
        truth: See `pixel_sums`.
        inside: See `pixel_sums`.
        focal_factor: Factor of the summed focal loss, (N,).
        overlap_factor: Factor of the sum of p t, (N,).
        size_factor: Factor of the sum of p, (N,).
        alpha: See `mask_terms`.
        gamma: See `mask_terms`.

    Returns:
        The derivative, float32 (N, P); zero where a pixel does not count.
    """
    signed = torch.where(truth, -logits, logits)
    missed = signed.sigmoid()
    hit = 1 - missed
    truth_weight, rest_weight = (-alpha, 1 - alpha) if alpha >= 0 else (-1.0, 1.0)
    focal = missed**gamma * (missed + gamma * F.softplus(signed) * hit)
    focal = focal * torch.where(truth, truth_weight * focal_factor[:, None], rest_weight * focal_factor[:, None])
    dice = missed * hit * torch.where(truth, (overlap_factor + size_factor)[:, None], size_factor[:, None])
    return (focal + dice) * inside


def _balanced(total: Tensor, truth_total: Tensor, alpha: float) -> Tensor:
    """Weight the sum over the target by alpha, and the sum over the other pixels by 1 - alpha."""
    return total if alpha < 0 else alpha * truth_total + (1 - alpha) * (total - truth_total)


def upsample(logits: Tensor, height: int, width: int) -> Tensor:
    """Upsample logits (N, M, h, w) to (N, M, H, W) in float32, as SAM 2 does for its loss and its predictor."""
    return F.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)


EAGER = Kernels(pixel_sums, pixel_gradient)
"""Both functions without compilation."""


def compiled_kernels() -> Kernels:
    """Return both functions compiled by `torch.compile`, first for one number of objects, then for any number."""
    # Do not ask for dynamic shapes from the start: alpha and gamma would become variables, too, and the square in the
    # focal loss would become a general power.
    return Kernels(torch.compile(pixel_sums), torch.compile(pixel_gradient))
