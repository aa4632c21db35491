"""Everything that decides what a store holds; two builds with equal configs and sources give equal arrays."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.classes import BCSS_CLASSES, DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES
from schemas.errors import ConfigError

COMPONENT_MIN_AREA_PX = 64
ALL_CLASSES = "all"


class BuildConfig(BaseModel):
    """Configuration of one build.

    Attributes:
        images: Folder of images below the source folder.
        masks: Folder of masks below the source folder.
        layout: `tile` cuts at native resolution, `resize` makes one square of a ROI.
        size_px: Side of a tile, a multiple of 8.
        stride_px: Step between tiles, the size unless given.
        objects: `label` makes one object a pixel value, `component` one a connected component.
        classes: Pixel values that become objects, or `all` that are not ignored.
        ignore: Pixel values that count neither as object nor as background.
        min_area_px: Smaller objects are left out; unless given 64 for components and 1 for label objects, which
            otherwise would no longer cover the mask.
        positive_points: P.
        negative_points: Q.
        seed: Of the choice among candidate points.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str = "images"
    masks: str = "masks"
    layout: Literal["tile", "resize"] = "tile"
    size_px: int = Field(default=1024, ge=8, multiple_of=8)
    stride_px: int = Field(default=0, ge=0)
    objects: Literal["label", "component"] = "label"
    classes: tuple[int, ...] | Literal["all"] = DEFAULT_CLASS_CODES
    ignore: tuple[int, ...] = DEFAULT_IGNORE_CODES
    min_area_px: int = Field(default=0, ge=0)
    positive_points: int = Field(default=8, ge=1)
    negative_points: int = Field(default=8, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _fill_dependent_defaults(cls, values: dict[str, object]) -> dict[str, object]:
        filled = dict(values)
        if not filled.get("stride_px"):
            filled["stride_px"] = filled.get("size_px", 1024)
        if not filled.get("min_area_px"):
            filled["min_area_px"] = COMPONENT_MIN_AREA_PX if filled.get("objects") == "component" else 1
        return filled

    @model_validator(mode="after")
    def _check_together(self) -> BuildConfig:
        if self.stride_px > self.size_px:
            raise ConfigError(
                f"--stride {self.stride_px}", f"leaves pixels out between tiles of {self.size_px} px", "lower it"
            )
        named = () if self.classes == ALL_CLASSES else self.classes
        both = set(named) & set(self.ignore)
        if both:
            codes = ", ".join(str(code) for code in sorted(both))
            raise ConfigError(
                "--classes", f"names {codes}, which --ignore leaves out of the loss", "name each code in one of the two"
            )
        return self

    def wanted(self, present: list[int]) -> frozenset[int]:
        """Which of the present pixel values become objects."""
        if self.classes == ALL_CLASSES:
            return frozenset(present) - set(self.ignore)
        return frozenset(present) & set(self.classes)


def parse_codes(text: str) -> tuple[int, ...]:
    """Read a list of class codes or BCSS names, as in `1,2,dcis`; the empty text is an empty list.

    Raises:
        ConfigError: An entry is neither.
    """
    by_name = {info.name.lower(): info.code for info in BCSS_CLASSES}
    codes: list[int] = []
    for entry in filter(None, (part.strip().lower() for part in text.split(","))):
        if entry.isascii() and entry.isdigit():
            codes.append(int(entry))
        elif entry in by_name:
            codes.append(by_name[entry])
        else:
            raise ConfigError(f"class {entry!r}", "is no code and no BCSS name", f"use one of {', '.join(by_name)}")
    return tuple(dict.fromkeys(codes))
