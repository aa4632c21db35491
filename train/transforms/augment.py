"""Augment the geometry of samples at random.

Each sample has its own random generator. The image, the segments, the ignored pixels and the prompts move together, and
so do all frames of a window. The first frame alone decides whether a map would lose an object.
Color is augmented later, for each image of a batch, on the device that trains; see `train.transforms.color`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pydantic import Field

from train.settings import Settings
from train.transforms.affine import Affine, apply_affine
from train.transforms.geometry import crop, random_orientation
from train.transforms.sample import Sample

REDRAWS = 5
"""How many times a random map is drawn; if each of them would lose an object, the map is skipped and counted."""


class AugmentConfig(Settings):
    """Random changes that are drawn for each training tile; the defaults only flip and rotate.

    A value of 0 turns a change off; for `crop`, a value of 1 does.

    Attributes:
        orientation: Whether one of the eight combinations of flips and quarter turns is drawn.
        rotate_deg: Largest rotation in degrees, either way.
        scale: Range x of the zoom factor, from 1 / (1 + x) to 1 + x.
        shear_deg: Largest shear in degrees.
        crop: Smallest share of each side that a random crop keeps.
        brightness: Range x of the factor on brightness, from 1 - x to 1 + x.
        contrast: Range of the factor on contrast, likewise.
        saturation: Range of the factor on saturation, likewise.
        hue: Largest shift of the hue as a share of the color circle.
        grey: Share of images that become gray.
        stain: Range x of the factors on hematoxylin, eosin and residue in optical density, from 1 - x to 1 + x.
    """

    orientation: bool = True
    rotate_deg: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.0, ge=0, lt=1)
    shear_deg: float = Field(default=0.0, ge=0, lt=45)
    crop: float = Field(default=1.0, gt=0, le=1)
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    saturation: float = Field(default=0.0, ge=0, le=1)
    hue: float = Field(default=0.0, ge=0, le=0.5)
    grey: float = Field(default=0.0, ge=0, le=1)
    stain: float = Field(default=0.0, ge=0, lt=1)

    @property
    def has_affine(self) -> bool:
        """Whether a rotation, zoom or shear is drawn."""
        return bool(self.rotate_deg or self.scale or self.shear_deg)


def augment_geometry(sample: Sample, config: AugmentConfig, generator: torch.Generator) -> Sample:
    """Draw an orientation, an affine map and a crop, in this order, and apply them.

    Args:
        sample: The sample, in the orientation of the store.
        config: The ranges of the random parameters.
        generator: The source of all random numbers.

    Returns:
        The augmented sample. An affine map or a crop that would lose an object is left out and counted in
        `Sample.skipped`.
    """
    if config.orientation:
        sample = random_orientation(sample, generator)
    if config.has_affine:
        sample = _random_affine(sample, config, generator)
    if config.crop < 1:
        sample = _random_crop(sample, config.crop, generator)
    return sample


def _random_affine(sample: Sample, config: AugmentConfig, generator: torch.Generator) -> Sample:
    width, height = sample.size_wh
    for _ in range(REDRAWS):
        turn, zoom, shear = (2 * torch.rand(3, generator=generator) - 1).tolist()
        drawn = Affine.around_center(
            width,
            height,
            angle=math.radians(config.rotate_deg * turn),
            scale=math.exp(math.log1p(config.scale) * zoom),
            shear=math.tan(math.radians(config.shear_deg * shear)),
        )
        moved = apply_affine(sample, drawn)
        if moved.dropped == sample.dropped and (moved.point_labels >= 0).any(1).all():
            return replace(moved, later=tuple(apply_affine(frame, drawn) for frame in moved.later))
    return replace(sample, skipped=sample.skipped + 1)


def _random_crop(sample: Sample, least: float, generator: torch.Generator) -> Sample:
    width, height = sample.size_wh
    for _ in range(REDRAWS):
        share, x, y = torch.rand(3, generator=generator).tolist()
        side = least + (1 - least) * share
        new_width, new_height = max(round(width * side), 1), max(round(height * side), 1)
        left, top = round(x * (width - new_width)), round(y * (height - new_height))
        cropped = crop(sample, left, top, new_width, new_height)
        if cropped.dropped == sample.dropped:
            later = tuple(crop(frame, left, top, new_width, new_height) for frame in cropped.later)
            return replace(cropped, later=later)
    return replace(sample, skipped=sample.skipped + 1)
