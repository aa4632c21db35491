"""Augment the colors of a batch on the device that trains: brightness, contrast, color and strength of the stains.

The random numbers come with the batch. Like every other augmentation, the color of an image therefore depends on the
seed, the epoch and the tile alone.
Axes: B images.
Source of the stains: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001.
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

GREY_DRAW = 4
"""Place of the number that decides whether an image becomes gray."""

_LUMA = (0.299, 0.587, 0.114)
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
# Optical density of hematoxylin, eosin and the residue, each in red, green and blue.
_STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))


_TO_YIQ = torch.tensor(_YIQ)
_STAIN_DENSITIES = torch.nn.functional.normalize(torch.tensor(_STAINS), dim=1)


@dataclass(frozen=True)
class _Matrices:
    """The constant matrices of this module on one device, all float32.

    Attributes:
        luma: Weights of red, green and blue in the brightness of a pixel, (3, 1, 1).
        to_yiq: The matrix from RGB to YIQ, (3, 3).
        from_yiq: The inverse of `to_yiq`, (3, 3).
        stains: Optical density of each stain in red, green and blue, (3, 3); each row has length 1.
        from_stains: The inverse of `stains`, (3, 3).
    """

    luma: Tensor
    to_yiq: Tensor
    from_yiq: Tensor
    stains: Tensor
    from_stains: Tensor


@cache
def _matrices(device: torch.device) -> _Matrices:
    # Copy the matrices to each device once, because every copy to a GPU waits for the GPU. The inverses are computed on
    # the CPU for the same reason.
    luma = torch.tensor(_LUMA)[:, None, None]
    matrices = luma, _TO_YIQ, _TO_YIQ.inverse(), _STAIN_DENSITIES, _STAIN_DENSITIES.inverse()
    return _Matrices(*(matrix.to(device) for matrix in matrices))


def augment_color(images: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Change the colors of images at random; parts that are turned off are not computed.

    Args:
        images: The RGB images, uint8 (B, 3, H, W).
        draws: Random numbers in [0, 1), float32 (B, 8); see `DRAWS`.
        config: The range of each part.

    Returns:
        The changed images, float32 (B, 3, H, W) from 0 to 255, or `images` itself if all parts are turned off.
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
        chosen = draws.to(images.device)[:, GREY_DRAW] < config.grey
        pixels = torch.where(chosen[:, None, None, None], _grey(pixels), pixels.float())
    if config.contrast:
        mean = _grey(pixels).mean((1, 2, 3), keepdim=True)
        pixels = _blend(pixels.float(), mean, 1 + config.contrast * spread[:, 1])
    if config.brightness:
        pixels = pixels.float() * (1 + config.brightness * spread[:, 0])[:, None, None, None]
    return pixels if pixels is images else pixels.clamp(0, 255)


def _grey(pixels: Tensor) -> Tensor:
    """Return the brightness of each pixel in all three channels, float32 (B, 3, H, W)."""
    return (pixels.float() * _matrices(pixels.device).luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def _blend(pixels: Tensor, towards: Tensor, factor: Tensor) -> Tensor:
    """Return towards + factor (pixels - towards), with one factor (B,) per image."""
    return torch.lerp(towards.expand_as(pixels), pixels, factor[:, None, None, None].expand_as(pixels))


def _turn_hue(pixels: Tensor, angle: Tensor) -> Tensor:
    """Rotate the two color axes of YIQ by an angle (B,) in radians; the brightness stays the same."""
    matrices = _matrices(pixels.device)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], -1).reshape(-1, 3, 3)
    return torch.einsum("bij,bjhw->bihw", matrices.from_yiq @ turn @ matrices.to_yiq, pixels)


def _jitter_stains(pixels: Tensor, factors: Tensor) -> Tensor:
    """Scale the optical density of each stain by a factor (B, 3)."""
    matrices = _matrices(pixels.device)
    mixed = matrices.from_stains @ (factors[:, :, None] * matrices.stains)
    # White has a density of zero. The offset of 1 keeps the density of black finite.
    density = -torch.log((pixels + 1) / 256)
    return 256 * torch.exp(-torch.einsum("bji,bjhw->bihw", mixed, density)) - 1
