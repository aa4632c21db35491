"""Focal loss, Dice loss and true IoU of masks, with a gradient that keeps nothing at full resolution.

Written plainly, with one operation after another under autograd, these terms keep some ten float32 maps at the targets'
resolution until the backward pass. Here the forward pass gives sums alone, and the backward pass brings the logits up
again and applies the derivatives. Each pass is one function over pixels, which `torch.compile` makes one kernel of.

Axes: N objects, M candidate masks, h and w of the logits, P pixels of the targets, H times W.
Sources: Lin et al., Focal Loss for Dense Object Detection, 2017, equation 5; Milletari et al., V-Net, 2016, equation 3,
unsquared and with a smoothing of 1.
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
    """Terms of masks, each float32 (N, M), or (N,) for one mask an object.

    Attributes:
        focal: Mean focal loss over the pixels that count.
        dice: Dice loss.
        iou: IoU of the mask with its target.
        overlap: Sum of the probabilities inside the target.
        size: Sum of all probabilities plus the target's pixels.
    """

    focal: Tensor
    dice: Tensor
    iou: Tensor
    overlap: Tensor
    size: Tensor

    def of(self, candidate: Tensor) -> MaskTerms:
        """Take one candidate, int64 (N,), of each object."""
        return MaskTerms(*(getattr(self, field.name).gather(1, candidate[:, None])[:, 0] for field in fields(self)))


@dataclass(frozen=True)
class Kernels:
    """The two passes over pixels; see `pixel_sums` and `pixel_gradient`, and `compiled_kernels`."""

    sums: Callable[..., tuple[Tensor, ...]]
    gradient: Callable[..., Tensor]


@torch.no_grad()
def mask_terms(
    logits: Tensor, truth: Tensor, inside: Tensor, alpha: float, gamma: float, kernels: Kernels
) -> MaskTerms:
    """Compute the terms of all candidates, without a gradient.

    Args:
        logits: (N, M, h, w), brought to the targets' resolution in float32.
        truth: bool (N, H, W), false where a pixel does not count.
        inside: bool (N, H, W), the pixels that count.
        alpha: Focal balance of positive against negative pixels; negative means none.
        gamma: Focal focus on hard pixels.
        kernels: How pixels are summed.
    """
    truth_pixels, inside_pixels = truth.flatten(1), inside.flatten(1)
    # One candidate at a time, so that one map at full resolution is held and not three.
    sums = [
        kernels.sums(upsample(one[:, None], *truth.shape[-2:]).flatten(1), truth_pixels, inside_pixels, alpha, gamma)
        for one in logits.unbind(1)
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
    """Give the focal and Dice terms (N,) of one candidate an object their gradient by its logits (N, h, w)."""
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
        ctx: Any, by_focal: Tensor, by_dice: Tensor
    ) -> tuple[Tensor | None, ...]:
        logits, truth, inside, overlap, size = ctx.saved_tensors
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            full = upsample(leaf[:, None], *truth.shape[-2:])
        by_pixel = ctx.kernels.gradient(
            full.detach()[:, 0].flatten(1),
            truth.flatten(1),
            inside.flatten(1),
            by_focal / inside.flatten(1).sum(1).clamp(min=1),
            # The Dice loss is 1 - (2 overlap + 1) / (size + 1).
            -2 * by_dice / (size + 1),
            by_dice * (2 * overlap + 1) / (size + 1).square(),
            *ctx.focus,
        )
        (gradient,) = torch.autograd.grad(full, leaf, by_pixel.reshape(full.shape))
        return gradient, None, None, None, None, None


def pixel_sums(
    logits: Tensor, truth: Tensor, inside: Tensor, alpha: float, gamma: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sum over the pixels that count: focal loss, p t, p, and pixels of intersection and union; each (N,).

    Args:
        logits: float32 (N, P); p is their sigmoid.
        truth: bool (N, P), t.
        inside: bool (N, P).
        alpha: See `mask_terms`.
        gamma: See `mask_terms`.
    """
    signed = torch.where(truth, -logits, logits)
    # What a pixel's probability lacks of its target; cross entropy is the softplus of the logit that it comes from.
    missed = signed.sigmoid() * inside
    focal = F.softplus(signed) * missed**gamma * inside
    shown = (logits > 0) & inside
    missed_truth = (missed * truth).sum(1)
    overlap = truth.sum(1) - missed_truth
    return (
        _balanced(focal.sum(1), (focal * truth).sum(1), alpha),
        overlap,
        overlap + missed.sum(1) - missed_truth,
        (shown & truth).sum(1).float(),
        (shown | truth).sum(1).float(),
    )


def pixel_gradient(
    logits: Tensor,
    truth: Tensor,
    inside: Tensor,
    by_focal: Tensor,
    by_overlap: Tensor,
    by_size: Tensor,
    alpha: float,
    gamma: float,
) -> Tensor:
    """Derivative by the logits (N, P) of `by_focal` focal + `by_overlap` p t + `by_size` p, each factor (N,)."""
    signed = torch.where(truth, -logits, logits)
    missed = signed.sigmoid()
    left = 1 - missed
    of_truth, of_rest = (-alpha, 1 - alpha) if alpha >= 0 else (-1.0, 1.0)
    focal = missed**gamma * (missed + gamma * F.softplus(signed) * left)
    focal = focal * torch.where(truth, of_truth * by_focal[:, None], of_rest * by_focal[:, None])
    dice = missed * left * torch.where(truth, (by_overlap + by_size)[:, None], by_size[:, None])
    return (focal + dice) * inside


def _balanced(of_all: Tensor, of_truth: Tensor, alpha: float) -> Tensor:
    """Weight the sum over the target by alpha, and that over the rest by 1 - alpha."""
    return of_all if alpha < 0 else alpha * of_truth + (1 - alpha) * (of_all - of_truth)


def upsample(logits: Tensor, height: int, width: int) -> Tensor:
    """Bring logits (N, M, h, w) to (N, M, H, W) in float32, as SAM 2 does for its loss and its predictor."""
    return F.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)


EAGER = Kernels(pixel_sums, pixel_gradient)


def compiled_kernels() -> Kernels:
    """Both passes by `torch.compile`: for one number of objects, then for any."""
    # Not for any from the start: alpha and gamma would be variables, too, and a square a power.
    return Kernels(torch.compile(pixel_sums), torch.compile(pixel_gradient))
