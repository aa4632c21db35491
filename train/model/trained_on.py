"""Record the training data in a checkpoint, so that prediction can use the same resolution and tile size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.classes import ClassInfo
from schemas.errors import CheckpointError
from schemas.limits import MAX_TILE_PX
from schemas.manifest import Manifest

ROI_MPP_TOLERANCE = 0.01
"""Largest relative difference of two resolutions that count as one."""


class TrainedOn(BaseModel):
    """The data that a model was trained on.

    Attributes:
        tile_size_px: Side of the tiles in pixels.
        layout: `tile` for tiles cut from ROIs, `resize` for whole ROIs.
        mpp_um: Micrometers per pixel of the tiles; None if it is not known, or differs between ROIs.
        classes: The classes of the objects.
        prompt: The prompt kind of training.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    tile_size_px: int = Field(ge=8, le=MAX_TILE_PX)
    layout: str = "tile"
    mpp_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    classes: tuple[ClassInfo, ...] = ()
    prompt: str = ""

    @classmethod
    def of(cls, manifest: Manifest, prompt: str) -> TrainedOn:
        """Make the record from the store of a run.

        Args:
            manifest: The manifest of the store.
            prompt: The prompt kind of training.
        """
        config = manifest.config
        own = [source.mpp_um for source in manifest.sources if source.objects]
        mpp = config.get("mpp_um") or (own[0] if own else None)
        if mpp is None or (config.get("mpp_um") is None and not all(_is_same(mpp, other) for other in own)):
            mpp = None
        layout = str(config.get("layout", "tile"))
        return cls(
            tile_size_px=manifest.tile_size_px,
            layout=layout,
            mpp_um=mpp if layout == "tile" else None,
            classes=manifest.classes,
            prompt=prompt,
        )

    def content(self) -> dict[str, Any]:
        """Return the record as plain values for a checkpoint."""
        return self.model_dump(mode="json")


def _is_same(mpp_um: float, other: float | None) -> bool:
    return other is not None and abs(other - mpp_um) <= ROI_MPP_TOLERANCE * mpp_um


def trained_on(content: Mapping[str, Any], path: Path) -> TrainedOn | None:
    """Read the record from a checkpoint; None if it is official or of an older version, and has none.

    Args:
        content: Content of the checkpoint.
        path: Path of the checkpoint, for the error.

    Raises:
        CheckpointError: The record is damaged.
    """
    recorded = content.get("trained_on")
    if recorded is None:
        return None
    try:
        return TrainedOn.model_validate(recorded)
    except (ValidationError, RecursionError) as error:
        raise CheckpointError(path, "has a damaged record of its data", "save or download it again") from error
