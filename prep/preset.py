"""Choose the rules of a data set that the user does not give: which codes are classes or ignored, and their names.

`bcss` has the rules of BCSS. `generic` takes every code as a class except 0, which is background, and 255, which is
ignored. `voc` has the classes of Pascal VOC. `instances` takes each value except 0 as one object. `auto` chooses
between `bcss` and `generic`.
Source of the VOC classes: Everingham et al., IJCV 2010, doi:10.1007/s11263-009-0275-4.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from prep.config import ALL_CLASSES, DatasetName, ObjectKind, parse_codes
from prep.derive.segments import present_codes
from prep.source.class_map import ClassEntry, colors_of
from prep.source.colors import read_labels
from prep.source.discover import RoiSource, has_tcga_barcode
from schemas.classes import BCSS_CLASSES, DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES, Color
from schemas.errors import ConfigError

logger = logging.getLogger(__name__)

Preset = Literal["auto", "bcss", "generic", "voc", "instances"]

BACKGROUND = ClassEntry(code=0, name="background")
OBJECT = ClassEntry(code=1, name="object")
IGNORED = 255
"""The code for ignored pixels in data sets other than BCSS, as in Pascal VOC."""

VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

_IGNORED_NAMES = ("ignore", "ignore*")
"""Names of classes that nnU-Net and QuPath leave out, in small letters."""

_BCSS_NAME = re.compile(r"TCGA-\w{2}-\w{4}.*DX\w*.*xmin\d+.*ymin\d+.*MPP-\d", re.IGNORECASE)


@dataclass(frozen=True)
class DatasetRules:
    """The rules of one data set.

    Attributes:
        dataset: The preset.
        objects: What makes an object: `label`, `component` or `instance`.
        classes: Codes that become objects, or `all`.
        ignore: Codes that count neither as object nor as background.
        class_map: Names, colors and merges of codes.
    """

    dataset: DatasetName
    objects: ObjectKind
    classes: tuple[int, ...] | Literal["all"]
    ignore: tuple[int, ...]
    class_map: tuple[ClassEntry, ...]


@dataclass(frozen=True)
class GivenRules:
    """What the user says about a data set; everything may be left out.

    Attributes:
        preset: The preset.
        objects: What makes an object: `label`, `component` or `instance`; None leaves the choice to the preset.
        classes: Codes and names as `parse_codes` takes them, or `all`.
        ignore: Codes and names; `none` or an empty text is an empty list.
        class_map: The class map; empty without one.
        has_class_of_instances: Whether a table or a second mask gives the class of each instance.
        sequences: Whether the ROIs are frames of sequences, where each value except 0 is one object in all frames.
        color_masks: Whether the colors of gray and palettized masks, too, stand for the codes.
    """

    preset: Preset = "auto"
    objects: ObjectKind | None = None
    classes: str | None = None
    ignore: str | None = None
    class_map: tuple[ClassEntry, ...] = ()
    has_class_of_instances: bool = False
    sequences: bool = False
    color_masks: bool = False


def dataset_rules(rois: list[RoiSource], given: GivenRules) -> DatasetRules:
    """Complete the user's rules with those of the data set's preset, and log in one line which preset that is.

    Args:
        rois: The ROIs. Their names choose the preset; their masks are read only if the names do not decide.
        given: What the user says about the data set.

    Raises:
        ConfigError: An entry is neither a code, a range nor a name, or the preset contradicts the kind of objects.
        SourceError: A mask that must be read cannot be read.
    """
    if given.sequences and given.objects not in (None, "instance"):
        what = "cannot be used with sequences, where each value of a mask is one object in all frames"
        raise ConfigError(f"--objects {given.objects}", what, "leave it out")
    dataset, why = _choose(rois, given)
    if given.sequences and dataset != "instances":
        raise ConfigError(f"--dataset {dataset}", "cannot be used with sequences", "leave it out")
    if (dataset == "instances") != ((given.objects or "label") == "instance") and given.objects is not None:
        what = f"cannot be used with --objects {given.objects}"
        raise ConfigError(f"--dataset {dataset}", what, "choose instances in both, or in neither")
    if given.has_class_of_instances and dataset != "instances":
        what = "give the class of each instance, but the values of the masks are read as classes"
        raise ConfigError("--class-mask and --instance-classes", what, "add --objects instance")
    if dataset == "bcss":
        rules = _rules(given, "bcss", given.class_map, DEFAULT_CLASS_CODES, DEFAULT_IGNORE_CODES)
    elif dataset == "voc":
        names = given.class_map or tuple(ClassEntry(code=c, name=n, color=_voc_color(c)) for c, n in _voc_codes())
        rules = _rules(given, "voc", _with_background(names), tuple(code for code, _ in _voc_codes()), (IGNORED,))
    elif dataset == "instances":
        rules = _instance_rules(given)
    else:
        ignore = () if _has_class(rois, given) else (IGNORED,)
        rules = _rules(given, "generic", _with_background(given.class_map), ALL_CLASSES, ignore)
    logger.info("data set: %s (%s): %s; --dataset changes that", dataset, why, _in_words(rules, given))
    return rules


def _choose(rois: list[RoiSource], given: GivenRules) -> tuple[DatasetName, str]:
    """Return the preset, and why it was chosen."""
    if given.preset != "auto":
        return given.preset, "given by --dataset"
    if given.sequences:
        return "instances", "sequences"
    if given.objects == "instance":
        return "instances", "--objects instance"
    names = [roi.image_path.stem for roi in rois]
    barcodes = [name for name in names if has_tcga_barcode(name)]
    others = [name for name in names if not has_tcga_barcode(name)]
    if others:
        if barcodes:
            return "generic", f"{len(barcodes)} of {len(names)} names have a TCGA barcode; {others[0]} has none"
        return "generic", "the names are not those of BCSS"
    bare = [roi.labels_path for roi in rois if not _BCSS_NAME.match(roi.image_path.stem)]
    for path, codes in _codes_of(bare, given):
        strange = [code for code in codes if code >= len(BCSS_CLASSES)]
        if strange:
            return "generic", f"{path.name} has code {strange[0]}, which BCSS does not have"
    return (
        "bcss",
        "the names have TCGA barcodes and the codes are those of BCSS" if bare else "the names are those of BCSS",
    )


def _codes_of(masks: list[Path], given: GivenRules) -> Iterator[tuple[Path, list[int]]]:
    """Yield the codes of each mask; masks are decoded when they are needed, and a few in advance."""
    threads = min(os.cpu_count() or 1, 8)
    read = partial(_present, colors=colors_of(given.class_map), always=given.color_masks)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(masks), threads):
            some = masks[start : start + threads]
            yield from zip(some, pool.map(read, some), strict=True)


def _present(mask: Path, colors: dict[Color, int], *, always: bool) -> list[int]:
    # The build reports unknown colors as an error, so the nearest known color will do here.
    return present_codes(read_labels(mask, colors, nearest=True, always=always)[0])


def _has_class(rois: list[RoiSource], given: GivenRules) -> bool:
    """Whether the code 255 is a class: the class map says so, or the masks contain only 0 and 255."""
    if given.ignore is not None or any(entry.code == IGNORED for entry in given.class_map):
        return True
    found: set[int] = set()
    for _, codes in _codes_of([roi.labels_path for roi in rois], given):
        found |= set(codes)
        if not found <= {BACKGROUND.code, IGNORED}:
            return False
    return IGNORED in found


def _instance_rules(given: GivenRules) -> DatasetRules:
    ignore = ()
    if given.sequences:
        wanted = str(IGNORED) if given.ignore is None else given.ignore
        ignore = () if wanted.strip().lower() == "none" else parse_codes(wanted)
    elif not given.has_class_of_instances and (given.ignore or "none").strip().lower() != "none":
        what = "names classes, but nothing gives the class of an instance"
        raise ConfigError("--ignore", what, "leave it out, or give --class-mask or --instance-classes")
    if not given.has_class_of_instances:
        named = [entry for entry in given.class_map if entry.code]
        if len(named) > 1:
            what = "names several classes, but nothing gives the class of an instance"
            raise ConfigError("--class-map", what, "give --class-mask or --instance-classes")
        one = named[0] if named else OBJECT
        same = ("", ALL_CLASSES, str(one.code), str(one.name).lower())
        if (given.classes or "").strip().lower() not in same:
            what = "chooses among classes, but nothing gives the class of an instance"
            raise ConfigError("--classes", what, "leave it out, or give --class-mask or --instance-classes")
        return DatasetRules("instances", "instance", (one.code,), ignore, (one,))
    own = replace(given, objects="instance", ignore=None if given.sequences else given.ignore)
    rules = _rules(own, "instances", _with_background(given.class_map), ALL_CLASSES, ())
    return replace(rules, ignore=ignore) if given.sequences else rules


def _with_background(class_map: tuple[ClassEntry, ...]) -> tuple[ClassEntry, ...]:
    """Return the class map with code 0 as background, unless it already uses the code or the name."""
    if any(entry.code == BACKGROUND.code or entry.name == BACKGROUND.name for entry in class_map):
        return class_map
    return (BACKGROUND, *class_map)


def _rules(
    given: GivenRules,
    dataset: DatasetName,
    class_map: tuple[ClassEntry, ...],
    default_classes: tuple[int, ...] | Literal["all"],
    default_ignore: tuple[int, ...],
) -> DatasetRules:
    named = [entry.code for entry in class_map if entry.name.lower() in _IGNORED_NAMES]
    left_out, objects = tuple(dict.fromkeys((*default_ignore, *named))), given.objects or "label"
    if given.ignore is not None:
        left_out = () if given.ignore.strip().lower() == "none" else parse_codes(given.ignore, class_map)
    if given.classes is None:
        return DatasetRules(dataset, objects, default_classes, left_out, class_map)
    if given.classes.strip().lower() == ALL_CLASSES:
        return DatasetRules(dataset, objects, ALL_CLASSES, left_out, class_map)
    # A range of classes does not include ignored codes.
    return DatasetRules(dataset, objects, parse_codes(given.classes, class_map, without=left_out), left_out, class_map)


def _in_words(rules: DatasetRules, given: GivenRules) -> str:
    if rules.dataset == "instances":
        ignored = ",".join(map(str, rules.ignore))
        whose = "instances of class " if ignored and not given.sequences else ""
        return f"each value except 0 is one object; ignored: {whose}{ignored or 'nothing'}"
    if rules.classes == ALL_CLASSES:
        has_background = rules.dataset != "bcss" and BACKGROUND.code not in rules.ignore
        classes = "every code is a class" + " except 0, the background" * has_background
    else:
        classes = f"the classes are {','.join(map(str, rules.classes))}"
    verb = "are" if len(rules.ignore) > 1 else "is"
    return f"{classes}, and {','.join(map(str, rules.ignore)) or 'nothing'} {verb} ignored"


def _voc_codes() -> Iterator[tuple[int, str]]:
    return enumerate(VOC_NAMES, start=1)


def _voc_color(code: int) -> Color:
    """Return the color of a code in the palette of Pascal VOC: each channel takes every third bit of the code."""
    red, green, blue = (
        sum(((code >> (3 * place + channel)) & 1) << (7 - place) for place in range(3)) for channel in range(3)
    )
    return red, green, blue
