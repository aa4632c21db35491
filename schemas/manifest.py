"""The record that a store carries in its attributes: how it was made, from what, and that it is whole."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.classes import ClassInfo
from schemas.layout import SCHEMA_VERSION
from schemas.limits import MAX_POINTS, MAX_ROI_PX, MAX_ROWS, MAX_TILE_PX
from schemas.prompt_kinds import PointCounts

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRecord(_Strict):
    """One ROI that went in, or was kept out.

    Attributes:
        frame_id: The file's stem; predictions are written to files of that name, so it is no path.
        image: Path of the image below the source folder, with `/`.
        mask: Path of the mask below the source folder.
        image_sha256: Digest of the image file.
        mask_sha256: Digest of the mask file.
        width_px: Width of the ROI in source pixels.
        height_px: Height of the ROI in source pixels.
        mpp_um: Micrometres a source pixel, None where the name does not say.
        palette: Red, green and blue of each of the mask's indices in hexadecimal, empty for a grey mask.
        tiles: How many tiles it gave.
        ignored_px: How many pixels of its tiles count neither as object nor as background.
        objects: How many objects it gave; 0 means that it was kept out, since nothing in it is wanted.
    """

    frame_id: str = Field(pattern=r"^[^/\x00]+$")
    image: str
    mask: str
    image_sha256: str
    mask_sha256: str
    width_px: int = Field(gt=0, le=MAX_ROI_PX)
    height_px: int = Field(gt=0, le=MAX_ROI_PX)
    mpp_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    palette: str = Field(default="", pattern="^([0-9a-f]{6}){0,256}$")
    tiles: int = Field(ge=0, le=MAX_ROWS)
    ignored_px: int = Field(default=0, ge=0, le=MAX_ROWS * MAX_TILE_PX**2)
    objects: int = Field(ge=0, le=MAX_ROWS)

    @model_validator(mode="after")
    def _check_area(self) -> SourceRecord:
        if self.width_px * self.height_px > MAX_ROI_PX:
            raise ValueError(f"{self.width_px} x {self.height_px} px are over the bound of {MAX_ROI_PX} px")
        return self


class Completion(_Strict):
    """Written last: a store without it is unfinished, and every reader refuses it.

    Attributes:
        tiles: N.
        objects: M.
        checksums_sha256: Digest over the `checksums` columns, which hold one SHA-256 for every other file.
        manifest_sha256: Digest over the rest of the manifest.
    """

    tiles: int = Field(gt=0, le=MAX_ROWS)
    objects: int = Field(gt=0, le=MAX_ROWS)
    checksums_sha256: str
    manifest_sha256: str = ""


class Manifest(_Strict):
    """What `zarr.open(store).attrs["bcss"]` holds.

    Attributes:
        schema_version: The layout's version.
        tool_version: Version of the package that wrote it.
        tile_size_px: S.
        object_kind: Stored as `objects`: `label` (one object a pixel value) or `component` (one a connected component).
        positive_points: P.
        negative_points: Q.
        classes: Codes that became objects, with name and colour.
        ignore: Codes that count neither as object nor as background.
        config: The builder's whole configuration.
        config_fingerprint: SHA-256 of that configuration.
        sources: The files it was made from.
        complete: The completion record.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    tool_version: str
    tile_size_px: int = Field(gt=0, le=MAX_TILE_PX, multiple_of=8)
    object_kind: Literal["label", "component"] = Field(alias="objects")
    positive_points: int = Field(ge=1, le=MAX_POINTS)
    negative_points: int = Field(ge=0, le=MAX_POINTS)
    classes: tuple[ClassInfo, ...] = Field(max_length=1 << 16)
    ignore: tuple[int, ...]
    config: dict[str, Any]
    config_fingerprint: str
    sources: tuple[SourceRecord, ...]
    complete: Completion

    @field_validator("classes")
    @classmethod
    def _check_codes(cls, classes: tuple[ClassInfo, ...]) -> tuple[ClassInfo, ...]:
        if len({info.code for info in classes}) < len(classes):
            raise ValueError("a code is there twice")
        return classes

    @property
    def point_counts(self) -> PointCounts:
        """P and Q."""
        return PointCounts(self.positive_points, self.negative_points)


def fingerprint(values: object) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 of a manifest without its completion record."""
    return fingerprint(manifest.model_dump(mode="json", by_alias=True, exclude={"complete"}))


def with_own_digest(manifest: Manifest) -> Manifest:
    """Write a manifest's digest into its completion record."""
    complete = manifest.complete.model_copy(update={"manifest_sha256": manifest_digest(manifest)})
    return manifest.model_copy(update={"complete": complete})
