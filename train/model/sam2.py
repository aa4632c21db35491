"""SAM 2.1 as Meta's package builds it."""

from __future__ import annotations

from typing import cast

from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base

from train.choices import ModelSize

_CONFIG_FILES: dict[ModelSize, str] = {
    "tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}


def build_base(size: ModelSize, image_size: int) -> SAM2Base:
    """Build Meta's model with random weights on the CPU, in evaluation mode."""
    overrides = [f"++model.image_size={image_size}"]
    # Without postprocessing: it would swap in other masks where a single mask is unstable.
    model = build_sam2(_CONFIG_FILES[size], device="cpu", hydra_overrides_extra=overrides, apply_postprocessing=False)
    return cast("SAM2Base", model)


def config_file(size: ModelSize) -> str:
    """Name of Meta's configuration of a model, which `build_sam2` takes."""
    return _CONFIG_FILES[size]
