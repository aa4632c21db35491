"""The settings that decide what a store contains; equal settings and sources give equal arrays."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from prep.source.class_map import ClassEntry, colors_of
from prep.source.folders import Folders, Unpaired
from schemas.classes import BCSS_CLASSES, DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES, ClassInfo, Color, describe_class
from schemas.codec_names import CodecName
from schemas.errors import ConfigError
from schemas.limits import MAX_CODE, MAX_POINTS, MAX_TILE_PX
from schemas.prompt_kinds import PointCounts

COMPONENT_MIN_AREA_PX = 64
ALL_CLASSES = "all"

_SEQUENCE_DEFAULTS: dict[str, object] = {
    "objects": "instance",
    "dataset": "instances",
    "classes": (1,),
    "class_map": (ClassEntry(code=1, name="object"),),
    "ignore": (255,),
}
"""Settings of sequences that differ from those of ROIs, unless given."""

_ADDED_LATER = (
    *("source_mpp_um", "dataset", "image_suffix", "mask_suffix", "unpaired", "class_masks"),
    *("instance_classes", "nearest_color", "sequences", "color_masks"),
)
"""Settings that earlier versions did not have."""

ObjectKind = Literal["label", "component", "instance"]
"""What makes an object: each class in a tile, each connected component, or each value of a mask of instances."""

DatasetName = Literal["bcss", "generic", "voc", "instances"]
"""The rules that a data set follows; see `prep.preset`."""

Edge = Literal["shift", "pad"]
"""Whether the last row and column of tiles are shifted inside the ROI or padded beyond it."""

Code = Annotated[int, Field(ge=0, le=MAX_CODE)]


class BuildConfig(BaseModel):
    """The settings of one build.

    Attributes:
        images: Folder of images in the source folder.
        masks: Folder of masks in the source folder.
        layout: `tile` cuts tiles at native resolution, `resize` resizes each ROI to one square.
        size_px: S, the side of a tile in pixels, a multiple of 8.
        stride_px: Step between tiles in pixels; `size_px` unless given.
        objects: `label` makes one object for each class in a tile, `component` one for each connected component,
            `instance` one for each pixel value but 0.
        classes: Pixel values that become objects, or `all` for every value that is not ignored.
        ignore: Codes of classes that count neither as object nor as background; in sequences, values of the masks. For
            instances none unless given.
        min_area_px: Minimum area of an object in pixels. Unless given, it is 64 for components and 1 for the others;
            label objects must cover the whole mask together.
        positive_points: P, the number of positive points of an object.
        negative_points: Q, the number of negative points of an object.
        seed: Seed of the choice among candidate points.
        edge: Whether tiles at the ROI's end are shifted inside or padded beyond it; padding counts as ignored.
        mpp_um: Resolution to which ROIs are resampled, in micrometers per pixel; native unless given.
        min_tissue: Minimum share of a tile's pixels that are not ignored; other tiles are left out.
        class_map: Codes with names and merges; those of BCSS unless given.
        source_mpp_um: Resolution of ROIs whose names and TIFF tags do not give it, in micrometers per pixel.
        codec: How images are compressed: `fast` to read quickly, `small` to take little space; both without loss.
        dataset: The preset. In data sets other than BCSS, `all` leaves out code 0, which is background.
        image_suffix: What the stem of each image has after the ROI's name.
        mask_suffix: What the stem of each mask has after the ROI's name.
        unpaired: What to do with an image without a mask, or a mask without an image; None for an error, except that a
            frame of a sequence may lack a mask.
        class_masks: Folder of the masks of classes that accompany masks of instances; empty if there are none.
        instance_classes: Class codes of instances, each as: name of the ROI or an empty string, id, code.
        nearest_color: Whether an unknown color in a color mask counts as the nearest known color.
        color_masks: Whether colors stand for the codes in gray and palettized masks, too.
        sequences: Whether the images are frames of sequences, in which a value of the masks is one object. Objects are
            then instances of the class `object`, and 255 is ignored, unless given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: str = "images"
    masks: str = "masks"
    layout: Literal["tile", "resize"] = "tile"
    size_px: int = Field(default=1024, ge=8, le=MAX_TILE_PX, multiple_of=8)
    stride_px: int = Field(default=0, ge=0)
    objects: ObjectKind = "label"
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
    source_mpp_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    dataset: DatasetName = "bcss"
    image_suffix: str = ""
    mask_suffix: str = ""
    unpaired: Unpaired | None = None
    class_masks: str = ""
    instance_classes: tuple[tuple[str, int, int], ...] = ()
    nearest_color: bool = False
    sequences: bool = False
    color_masks: bool = False

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Leave out these settings if not given, so that stores of versions without them keep the same fingerprint.
        values: dict[str, Any] = write(self)
        for name in _ADDED_LATER:
            if getattr(self, name) == type(self).model_fields[name].default:
                del values[name]
        return values

    @model_validator(mode="before")
    @classmethod
    def _fill_dependent_defaults(cls, values: dict[str, object]) -> dict[str, object]:
        filled = dict(values)
        if filled.get("sequences"):
            filled = {**_SEQUENCE_DEFAULTS, **filled}
        elif filled.get("unpaired") == "error":
            # For images that are not frames, this equals leaving the setting out.
            filled["unpaired"] = None
        if filled.get("objects") == "instance":
            filled.setdefault("ignore", ())
        if not filled.get("stride_px"):
            filled["stride_px"] = filled.get("size_px", 1024)
        if not filled.get("min_area_px"):
            # Somebody outlined each instance, so even small ones are intended.
            filled["min_area_px"] = COMPONENT_MIN_AREA_PX if filled.get("objects") == "component" else 1
        return filled

    @model_validator(mode="after")
    def _check_together(self) -> BuildConfig:
        if self.stride_px > self.size_px:
            raise ConfigError(
                f"--stride {self.stride_px}",
                f"leaves pixels out between tiles of {self.size_px} px",
                "give a smaller stride",
            )
        if self.sequences and self.objects != "instance":
            what = "cannot be used with sequences, where each value of a mask is one object in all frames"
            raise ConfigError(f"--objects {self.objects}", what, "leave it out")
        if self.sequences and self.min_tissue:
            what = "would leave a tile out of some frames and not of others"
            raise ConfigError(f"--min-tissue {self.min_tissue}", what, "leave it out with --sequences")
        if self.layout == "resize" and (self.stride_px != self.size_px or self.edge != "shift"):
            raise ConfigError("--layout resize", "makes one tile of a ROI", "leave out --stride and --edge")
        named = () if self.classes == ALL_CLASSES else self.classes
        gone = [code for code in named if self.merges.get(code, code) != code]
        if gone:
            what = f"names {gone[0]}, which the class map merges into {self.merges[gone[0]]}"
            raise ConfigError("--classes", what, "name that code instead")
        # The ignored values of sequences are not classes.
        both = set[int]() if self.sequences else set(named) & set(self.ignore)
        if both:
            codes = ", ".join(str(code) for code in sorted(both))
            raise ConfigError(
                "--classes", f"names {codes}, which --ignore names too", "name each code in one of the two"
            )
        return self

    @property
    def folders(self) -> Folders:
        """Where the files of the data set lie."""
        suffixes = (self.image_suffix, self.mask_suffix)
        return Folders(self.images, self.masks, self.class_masks, *suffixes, self.unpaired, self.sequences)

    @property
    def colors(self) -> dict[Color, int]:
        """The code of each color, for masks whose colors are the classes."""
        return colors_of(self.class_map)

    @property
    def point_counts(self) -> PointCounts:
        """The point counts P and Q."""
        return PointCounts(self.positive_points, self.negative_points)

    @property
    def merges(self) -> dict[int, int]:
        """The codes that are merged, each with the code that it counts as."""
        return {entry.code: entry.into for entry in self.class_map if entry.into is not None}

    def known_codes(self) -> set[int]:
        """The pixel values that a mask may contain, unless `classes` is `all`."""
        listed = {code for entry in self.class_map for code in (entry.code, entry.into) if code is not None}
        listed |= {info.code for info in _described(self.class_map)}
        return listed | set(self.ignore) | (set() if self.classes == ALL_CLASSES else set(self.classes))

    def wanted(self, present: list[int]) -> frozenset[int]:
        """The codes among the present ones that become objects.

        Args:
            present: The codes in a mask, after merges.
        """
        if self.classes == ALL_CLASSES:
            background = set[int]() if self.dataset == "bcss" else {0}
            return frozenset(present) - set(self.ignore) - background
        return frozenset(present) & set(self.classes)

    def describe(self, code: int) -> ClassInfo:
        """Return the name and color of a code."""
        by_code = {entry.code: entry for entry in self.class_map}
        if code in by_code:
            return by_code[code].info()
        found = describe_class(code)
        if self.dataset != "bcss":
            return found.model_copy(update={"name": f"code_{code}"})
        # A data set that names its own classes does not use the names of BCSS.
        is_bcss = not any(entry.name for entry in self.class_map)
        return found if is_bcss else found.model_copy(update={"name": f"class_{code}"})


def _described(class_map: tuple[ClassEntry, ...]) -> tuple[ClassInfo, ...]:
    """Return the named classes: those of the map if it gives names, or those of BCSS if the map only merges codes."""
    if any(entry.name for entry in class_map):
        return tuple(entry.info() for entry in class_map)
    return BCSS_CLASSES


def code_of_class(text: str, class_map: tuple[ClassEntry, ...] = ()) -> int:
    """Return the code of one class that a table gives by its name or by its code.

    A name comes before a code, because a class may be called "3". A name in other case is accepted if only one class
    has it.

    Args:
        text: The name or the code.
        class_map: The names of the classes; those of BCSS unless given.

    Raises:
        ConfigError: The text is neither a name nor a code.
    """
    named = _code_of_name(text, class_map)
    if named is not None:
        return named
    if text.isascii() and text.isdigit() and int(text) <= MAX_CODE:
        return int(text)
    raise _unknown_class(text, class_map)


def parse_codes(text: str, class_map: tuple[ClassEntry, ...] = (), without: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Parse a list of class codes, ranges of codes and class names, as in `1,2,10-20,dcis`.

    Args:
        text: The list; an empty text is an empty list.
        class_map: The names of the classes; those of BCSS unless given.
        without: Codes that a range leaves out.

    Returns:
        The codes, each once.

    Raises:
        ConfigError: An entry is neither a code, a range nor a name.
    """
    codes: list[int] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = entry.partition("-")
        ends = [end for end in (first, last if dash else first) if end.isascii() and end.isdigit()]
        if len(ends) == 2 and int(ends[0]) <= int(ends[1]) <= MAX_CODE:
            span = range(int(ends[0]), int(ends[1]) + 1)
            codes.extend(code for code in span if len(span) == 1 or code not in without)
        else:
            named = _code_of_name(entry, class_map)
            if named is None:
                raise _unknown_class(entry, class_map)
            codes.append(named)
    return tuple(dict.fromkeys(codes))


def _code_of_name(text: str, class_map: tuple[ClassEntry, ...]) -> int | None:
    """Return the code of a class by its name, in other case only if no other class has the same letters."""
    named = {info.name: info.code for info in _described(class_map)}
    alike = [code for name, code in named.items() if name.lower() == text.lower()]
    return named.get(text, alike[0] if len(alike) == 1 else None)


def _unknown_class(text: str, class_map: tuple[ClassEntry, ...]) -> ConfigError:
    names = [info.name for info in _described(class_map)]
    near = [name for name in names if name.lower() in get_close_matches(text.lower(), map(str.lower, names), n=1)]
    remedy = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(names)}"
    return ConfigError(f"class {text!r}", "is neither a code nor a class name", remedy)
