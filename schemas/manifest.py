"""The manifest in a store's attributes: the files and settings it was built from, and a record that it is complete."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from schemas.classes import ClassInfo
from schemas.layout import SCHEMA_VERSION, SEQUENCE_SCHEMA_VERSION
from schemas.limits import MAX_FRAME_NUMBER, MAX_POINTS, MAX_ROI_PX, MAX_ROWS, MAX_TILE_PX
from schemas.prompt_kinds import PointCounts

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Name = Annotated[str, Field(pattern=r"^[^/\x00]+$")]
"""Name of a ROI or a sequence; predictions are written to files of that name, so it contains no slash."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _without_none(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """Leave out the named keys if they have no value, because earlier versions did not have these keys."""
    return {key: value for key, value in values.items() if key not in names or value is not None}


class SourceRecord(_Strict):
    """One ROI of the source folder, or one frame of a sequence, whether it is in the store or was left out.

    Attributes:
        frame_id: The file's stem; for a frame, the name of its sequence and the stem.
        image: Path of the image below the source folder, with `/`.
        mask: Path of the mask below the source folder; None for a frame without a mask, which is unlabeled.
        image_sha256: SHA-256 of the image file.
        mask_sha256: SHA-256 of the mask file; None if there is none.
        width_px: Width of the ROI in source pixels.
        height_px: Height of the ROI in source pixels.
        mpp_um: Micrometers per source pixel; None if the file name does not give it.
        class_px: Number of source pixels of each selected class, each counted once; None in stores of earlier versions.
        class_mask: Path of the mask of classes that accompanies a mask of instances; None if there is none.
        class_mask_sha256: SHA-256 of that file.
        palette: Red, green and blue of each index of the mask, in hexadecimal; empty for a gray mask.
        tiles: Number of its tiles.
        ignored_px: Number of pixels of its tiles that count neither as object nor as background.
        objects: Number of its objects; a ROI with 0 objects was left out, since it contains no selected class. A frame
            with 0 objects was left out only if its whole sequence has none.
        sequence: Name of its sequence; None for a ROI.
        frame_number: Number of the frame in its sequence; None for a ROI.
    """

    frame_id: Name
    image: str
    mask: str | None
    image_sha256: str
    mask_sha256: str | None
    width_px: int = Field(gt=0, le=MAX_ROI_PX)
    height_px: int = Field(gt=0, le=MAX_ROI_PX)
    mpp_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    palette: str = Field(default="", pattern="^([0-9a-f]{6}){0,256}$")
    tiles: int = Field(ge=0, le=MAX_ROWS)
    ignored_px: int = Field(default=0, ge=0, le=MAX_ROWS * MAX_TILE_PX**2)
    objects: int = Field(ge=0, le=MAX_ROWS)
    class_px: dict[int, int] | None = None
    class_mask: str | None = None
    class_mask_sha256: str | None = None
    sequence: Name | None = None
    frame_number: int | None = Field(default=None, ge=0, le=MAX_FRAME_NUMBER)

    @model_serializer(mode="wrap")
    def _leave_out_what_is_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_none(write(self), "class_px", "class_mask", "class_mask_sha256", "sequence", "frame_number")

    @model_validator(mode="after")
    def _check_area(self) -> SourceRecord:
        if self.width_px * self.height_px > MAX_ROI_PX:
            raise ValueError(f"{self.width_px} x {self.height_px} px exceed the maximum of {MAX_ROI_PX} px")
        return self


class Completion(_Strict):
    """The completion record, which a build writes last; every reader refuses a store without it as unfinished.

    Attributes:
        tiles: N, the number of tiles.
        objects: M, the number of objects.
        checksums_sha256: SHA-256 over the `checksums` columns, which hold the SHA-256 of every other file.
        manifest_sha256: SHA-256 over the rest of the manifest.
    """

    tiles: int = Field(gt=0, le=MAX_ROWS)
    objects: int = Field(gt=0, le=MAX_ROWS)
    checksums_sha256: str
    manifest_sha256: str = ""


class Manifest(_Strict):
    """The content of `zarr.open(store).attrs["bcss"]`.

    Attributes:
        schema_version: Version of the layout: 2 if the store has sequences, else 1.
        tool_version: Version of the package that wrote the store.
        tile_size_px: S, the side of a tile in pixels.
        object_kind: `label` (one object for each class of a tile), `component` (one for each connected component) or
            `instance` (one for each value of the mask); its key in the attributes is `objects`.
        positive_points: P, the number of positive points of an object.
        negative_points: Q, the number of negative points of an object.
        classes: The classes that became objects.
        ignore: Codes that count neither as object nor as background.
        config: All settings of the build.
        config_fingerprint: SHA-256 of the settings.
        sources: All ROIs of the source folder.
        complete: The completion record.
        dataset: The rules that the data set follows, such as `bcss`; None in stores of earlier versions.
        split_method: How the patients were divided; None in stores of earlier versions.
        sequences: Names of the sequences, in the order of the store; empty in a store of ROIs.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    tool_version: str
    tile_size_px: int = Field(gt=0, le=MAX_TILE_PX, multiple_of=8)
    object_kind: Literal["label", "component", "instance"] = Field(alias="objects")
    positive_points: int = Field(ge=1, le=MAX_POINTS)
    negative_points: int = Field(ge=0, le=MAX_POINTS)
    classes: tuple[ClassInfo, ...] = Field(max_length=1 << 16)
    ignore: tuple[int, ...]
    config: dict[str, Any]
    config_fingerprint: str
    sources: tuple[SourceRecord, ...]
    complete: Completion
    dataset: str | None = None
    split_method: str | None = None
    sequences: tuple[Name, ...] = Field(default=(), max_length=MAX_ROWS)

    @model_serializer(mode="wrap")
    def _leave_out_what_is_unknown(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # In a store of an earlier version, the digest covers only the keys that this version had.
        values = _without_none(write(self), "dataset", "split_method")
        if not self.sequences:
            del values["sequences"]
        return values

    @field_validator("classes")
    @classmethod
    def _check_codes(cls, classes: tuple[ClassInfo, ...]) -> tuple[ClassInfo, ...]:
        if len({info.code for info in classes}) < len(classes):
            raise ValueError("a code is listed twice")
        return classes

    @model_validator(mode="after")
    def _check_sequences(self) -> Manifest:
        if (self.schema_version == SEQUENCE_SCHEMA_VERSION) != bool(self.sequences):
            raise ValueError(f"version {self.schema_version} with {len(self.sequences)} sequences")
        if len(set(self.sequences)) < len(self.sequences):
            raise ValueError("a sequence is listed twice")
        return self

    @property
    def kept(self) -> list[SourceRecord]:
        """The ROIs in the store: those with an object, and all frames of a sequence with an object."""
        known = set(self.sequences)
        return [source for source in self.sources if source.objects or source.sequence in known]

    @property
    def merges(self) -> dict[int, int]:
        """The code that each merged code counts as; the labels of tiles keep the codes from before the merge."""
        entries = cast("list[dict[str, Any]]", self.config.get("class_map") or [])
        return {int(entry["code"]): int(entry["into"]) for entry in entries if entry.get("into") is not None}

    @property
    def point_counts(self) -> PointCounts:
        """The point counts P and Q."""
        return PointCounts(self.positive_points, self.negative_points)


def fingerprint(values: object) -> str:
    """SHA-256 of a JSON value in hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 of a manifest without its completion record, in hexadecimal."""
    return fingerprint(manifest.model_dump(mode="json", by_alias=True, exclude={"complete"}))


def with_own_digest(manifest: Manifest) -> Manifest:
    """Return the manifest with its own digest in its completion record."""
    complete = manifest.complete.model_copy(update={"manifest_sha256": manifest_digest(manifest)})
    return manifest.model_copy(update={"complete": complete})
