"""Everything that decides what a store holds; two builds with equal configs and sources give equal arrays."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prep.source.class_map import ClassEntry
from schemas.classes import BCSS_CLASSES, DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES, ClassInfo, describe_class
from schemas.codec_names import CodecName
from schemas.errors import ConfigError
from schemas.limits import MAX_CODE, MAX_POINTS, MAX_TILE_PX
from schemas.prompt_kinds import PointCounts

COMPONENT_MIN_AREA_PX = 64
ALL_CLASSES = "all"

Edge = Literal["shift", "pad"]
"""What becomes of the last row and column of tiles."""

Code = Annotated[int, Field(ge=0, le=MAX_CODE)]


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
        edge: Whether tiles at the ROI's end are shifted inside or padded beyond it; padding counts as ignored.
        mpp_um: Resolution to resample ROIs to, micrometres a pixel; native unless given.
        min_tissue: Tiles with a smaller share of pixels that count are left out.
        class_map: Codes with names and merges; those of BCSS unless given.
        codec: `fast` for reading speed, `small` for size; both lossless.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str = "images"
    masks: str = "masks"
    layout: Literal["tile", "resize"] = "tile"
    size_px: int = Field(default=1024, ge=8, le=MAX_TILE_PX, multiple_of=8)
    stride_px: int = Field(default=0, ge=0)
    objects: Literal["label", "component"] = "label"
    classes: tuple[Code, ...] | Literal["all"] = DEFAULT_CLASS_CODES
    ignore: tuple[Code, ...] = DEFAULT_IGNORE_CODES
    min_area_px: int = Field(default=0, ge=0)
    positive_points: int = Field(default=8, ge=1, le=MAX_POINTS)
    negative_points: int = Field(default=8, ge=0, le=MAX_POINTS)
    seed: int = Field(default=0, ge=0)
    edge: Edge = "shift"
    mpp_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    min_tissue: float = Field(default=0.0, ge=0, le=1)
    class_map: tuple[ClassEntry, ...] = ()
    codec: CodecName = "fast"

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
        if self.layout == "resize" and (self.stride_px != self.size_px or self.edge != "shift"):
            raise ConfigError("--layout resize", "has one tile a ROI, and no stride or edge", "leave the two out")
        named = () if self.classes == ALL_CLASSES else self.classes
        gone = [code for code in named if self.merges.get(code, code) != code]
        if gone:
            what = f"names {gone[0]}, which the class map merges into {self.merges[gone[0]]}"
            raise ConfigError("--classes", what, "name that one")
        both = set(named) & set(self.ignore)
        if both:
            codes = ", ".join(str(code) for code in sorted(both))
            raise ConfigError(
                "--classes", f"names {codes}, which --ignore leaves out of the loss", "name each code in one of the two"
            )
        return self

    @property
    def point_counts(self) -> PointCounts:
        """P and Q."""
        return PointCounts(self.positive_points, self.negative_points)

    @property
    def merges(self) -> dict[int, int]:
        """Codes that count as another one."""
        return {entry.code: entry.into for entry in self.class_map if entry.into is not None}

    def known_codes(self) -> set[int]:
        """Pixel values that a mask may hold when not all are wanted."""
        listed = {code for entry in self.class_map for code in (entry.code, entry.into) if code is not None}
        listed |= {info.code for info in _described(self.class_map)}
        return listed | set(self.ignore) | (set() if self.classes == ALL_CLASSES else set(self.classes))

    def wanted(self, present: list[int]) -> frozenset[int]:
        """Which of the present codes, after merges, become objects."""
        if self.classes == ALL_CLASSES:
            return frozenset(present) - set(self.ignore)
        return frozenset(present) & set(self.classes)

    def describe(self, code: int) -> ClassInfo:
        """Name and colour of a code."""
        by_code = {entry.code: entry for entry in self.class_map}
        if code in by_code:
            return by_code[code].info()
        found = describe_class(code)
        # A data set with names of its own has none of BCSS.
        is_bcss = not any(entry.name for entry in self.class_map)
        return found if is_bcss else found.model_copy(update={"name": f"class_{code}"})


def _described(class_map: tuple[ClassEntry, ...]) -> tuple[ClassInfo, ...]:
    """The classes with a name: a map that gives names describes its data set, one that only merges leaves it BCSS."""
    if any(entry.name for entry in class_map):
        return tuple(entry.info() for entry in class_map)
    return BCSS_CLASSES


def parse_codes(text: str, class_map: tuple[ClassEntry, ...] = ()) -> tuple[int, ...]:
    """Read a list of class codes, ranges of them or names, as in `1,2,10-20,dcis`; the empty text is an empty list.

    Args:
        text: The list.
        class_map: Names the codes; BCSS does unless given.

    Raises:
        ConfigError: An entry is neither.
    """
    by_name = {info.name.lower(): info.code for info in _described(class_map)}
    codes: list[int] = []
    for entry in filter(None, (part.strip().lower() for part in text.split(","))):
        first, dash, last = entry.partition("-")
        ends = [end for end in (first, last if dash else first) if end.isascii() and end.isdigit()]
        if len(ends) == 2 and int(ends[0]) <= int(ends[1]) <= MAX_CODE:
            codes.extend(range(int(ends[0]), int(ends[1]) + 1))
        elif entry in by_name:
            codes.append(by_name[entry])
        else:
            raise ConfigError(f"class {entry!r}", "is no code and no class name", f"use one of {', '.join(by_name)}")
    return tuple(dict.fromkeys(codes))
