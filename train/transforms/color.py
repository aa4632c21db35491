"""Colour augmentation of a batch on the device that trains: light, colour, and the strength of the two stains.

Axes: B images. The draws come with the batch, so colour depends on (seed, epoch, tile) like everything else.
Source: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001, for the stains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from train.transforms.augment import AugmentConfig

DRAWS = 8
"""Random numbers in [0, 1) per image, in this order: brightness, contrast, saturation, hue, gray and three stains."""

_LUMA = (0.299, 0.587, 0.114)
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
# Optical density of haematoxylin, eosin and what is left, in red, green and blue.
_STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))


_TO_YIQ = torch.tensor(_YIQ)
_STAIN_DENSITIES = torch.nn.functional.normalize(torch.tensor(_STAINS), dim=1)


@dataclass(frozen=True)
class _Matrices:
    """The constants on one device.

    Attributes:
        luma: (3, 1, 1).
        to_yiq: (3, 3).
        from_yiq: Its inverse.
        stains: (3, 3), rows of length 1.
        from_stains: Its inverse.
    """

    luma: Tensor
    to_yiq: Tensor
    from_yiq: Tensor
    stains: Tensor
    from_stains: Tensor


@cache
def _matrices(device: torch.device) -> _Matrices:
    # Once: each copy to a GPU would wait for it, and so would an inverse there.
    found = torch.tensor(_LUMA)[:, None, None], _TO_YIQ, _TO_YIQ.inverse(), _STAIN_DENSITIES, _STAIN_DENSITIES.inverse()
    return _Matrices(*(matrix.to(device) for matrix in found))


def augment_color(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Jitter colours; parts that are switched off cost nothing.

    Args:
        images: uint8 (B, 3, H, W).
        draws: float32 (B, 8), numbers in [0, 1).
        config: How far.

    Returns:
        The images as they are, or float32 (B, 3, H, W) from 0 to 255.
    """
    spread = 2 * draws.to(images.device) - 1
    pixels = images
    if config.stain:
        pixels = _jitter_stains(pixels.float(), 1 + config.stain * spread[:, 5:8])
    if config.hue:
        pixels = _turn_hue(pixels.float(), 2 * math.pi * config.hue * spread[:, 3])
    if config.saturation:
        pixels = _blend(pixels.float(), _grey(pixels), 1 + config.saturation * spread[:, 2])
    if config.grey:
        chosen = draws.to(images.device)[:, 4] < config.grey
        pixels = torch.where(chosen[:, None, None, None], _grey(pixels), pixels.float())
    if config.contrast:
        mean = _grey(pixels).mean((1, 2, 3), keepdim=True)
        pixels = _blend(pixels.float(), mean, 1 + config.contrast * spread[:, 1])
    if config.brightness:
        pixels = pixels.float() * (1 + config.brightness * spread[:, 0])[:, None, None, None]
    return pixels if pixels is images else pixels.clamp(0, 255)


def _grey(pixels: Tensor) -> Tensor:
    return (pixels.float() * _matrices(pixels.device).luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def _blend(pixels: Tensor, towards: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(towards.expand_as(pixels), pixels, factor[:, None, None, None].expand_as(pixels))


def _turn_hue(pixels: Tensor, angle: Tensor) -> Tensor:
    """Turn the two colour axes of YIQ, which leaves brightness as it is."""
    known = _matrices(pixels.device)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], -1).reshape(-1, 3, 3)
    return torch.einsum("bij,bjhw->bihw", known.from_yiq @ turn @ known.to_yiq, pixels)


def _jitter_stains(pixels: Tensor, factors: Tensor) -> Tensor:
    """Scale the optical density of each stain; factors are (B, 3)."""
    known = _matrices(pixels.device)
    mixed = known.from_stains @ (factors[:, :, None] * known.stains)
    # Density is zero in white; the offset keeps black finite.
    density = -torch.log((pixels + 1) / 256)
    return 256 * torch.exp(-torch.einsum("bji,bjhw->bihw", mixed, density)) - 1
