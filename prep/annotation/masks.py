"""Write annotations as masks, one PNG for each image, with a class map beside them.

Areas are drawn in the order of the file, so a later area covers an earlier one. Arrays are H, W.
"""

from __future__ import annotations

import csv
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prep.annotation.reader import read_annotations
from prep.annotation.shapes import Annotations, Shape
from prep.files import is_there
from prep.source.class_map import ClassEntry
from prep.source.folders import IMAGE_SUFFIXES
from schemas.classes import Color
from schemas.errors import BcssError, ConfigError, SourceError, joined
from schemas.file_names import CLASS_MAP_FILE, INSTANCES_FILE
from schemas.limits import MAX_CODE
from schemas.picture.decode import image_header

logger = logging.getLogger(__name__)

IGNORED_CLASS = "ignore"
"""Class of areas that count neither as object nor as background; a build ignores a class of this name by default."""


@dataclass(frozen=True)
class MaskPlan:
    """What to draw.

    Attributes:
        shapes: The areas of each image by its stem, in the order in which they are drawn.
        sizes: Width and height of each image by its stem.
        codes: The code of each class.
        colors: The color of each class that has one.
    """

    shapes: dict[str, list[Shape]]
    sizes: dict[str, tuple[int, int]]
    codes: dict[str, int]
    colors: dict[str, Color]


@dataclass
class DrawnMasks:
    """What was drawn.

    Attributes:
        images: Number of masks.
        areas: Number of areas by class.
        covered_px: Number of pixels of an earlier area that a later area covers, by class of the earlier and of the
            later area.
        hidden: Number of areas without a visible pixel.
    """

    images: int = 0
    areas: Counter[str] = field(default_factory=Counter[str])
    covered_px: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    hidden: int = 0


def write_masks(
    annotations: Path,
    images: Path,
    out: Path,
    class_map: tuple[ClassEntry, ...] = (),
    *,
    instances: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> DrawnMasks:
    """Draw annotations as masks.

    Args:
        annotations: A COCO file, a GeoJSON or Labelme file of one image, or a folder of such files or of YOLO files.
        images: The folder of images, from which the sizes are read.
        out: The folder to write, which must be absent or empty. It gets the masks, `classes.tsv`, and `instances.csv`
            for masks of instances.
        class_map: The codes of classes, so that several calls use the same codes.
        instances: Whether mask values number the instances of each image from 1; otherwise they are class codes.
        on_image: Called with the number of drawn images and with their total number.

    Raises:
        SourceError: An annotation or an image cannot be used. All problems are in one error, and nothing is written.
        ConfigError: The folder has other content, or the class map lacks a class.
    """
    if is_there(out):
        raise ConfigError(f"--out {out}", "is not empty", "name a new folder")
    plan = plan_masks(annotations, images, class_map)
    if instances:
        plan = _with_ignored_crowds(annotations, plan, class_map)
    drawn = DrawnMasks()
    # Write to a folder beside it and rename that at the end, so that the output folder is complete when it appears.
    out = out.resolve()
    partial = out.with_name(f"{out.name}.{uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        rows: list[tuple[str, int, str]] = []
        for number, (stem, areas) in enumerate(plan.shapes.items(), start=1):
            rows += _write(partial / f"{stem}.png", areas, plan.sizes[stem], plan.codes, drawn, instances=instances)
            if on_image:
                on_image(number, len(plan.shapes))
        _write_tables(partial, plan, rows if instances else None)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return drawn


def plan_masks(annotations: Path, images: Path, class_map: tuple[ClassEntry, ...] = ()) -> MaskPlan:
    """Read annotations, and compare them with their images.

    Args:
        annotations: The annotations; see `write_masks`.
        images: The folder of images.
        class_map: The codes of classes.

    Raises:
        SourceError: An annotation or an image cannot be used. All problems are in one error.
        ConfigError: The class map lacks a class.
    """
    paths = _images(images)
    sizes = {stem: image_header(path).size for stem, path in paths.items()}
    found = read_annotations(annotations, sizes)
    shapes = _matched(annotations, images, found, paths)
    _check_sizes(annotations, found, sizes, shapes)
    colors = found.colors | {entry.name: entry.color for entry in class_map if entry.color is not None}
    return MaskPlan(shapes, sizes, _codes(found, shapes, class_map), colors)


def _with_ignored_crowds(source: Path, plan: MaskPlan, class_map: tuple[ClassEntry, ...]) -> MaskPlan:
    """Draw each crowd area, which outlines many instances at once, first and as an instance of an ignored class."""
    crowds = sum(area.is_crowd for areas in plan.shapes.values() for area in areas)
    if not crowds:
        return plan
    given = {entry.name: entry.code for entry in class_map} | plan.codes
    code = given.get(IGNORED_CLASS, max(given.values(), default=0) + 1)
    what = "crowd areas (many instances in one outline) get the class %s, which a build leaves out of loss and scores"
    logger.warning(f"%s: {what}: %d", source, IGNORED_CLASS, crowds)
    shapes = {
        stem: [replace(area, class_name=IGNORED_CLASS) for area in areas if area.is_crowd]
        + [area for area in areas if not area.is_crowd]
        for stem, areas in plan.shapes.items()
    }
    return replace(plan, shapes=shapes, codes={**plan.codes, IGNORED_CLASS: code})


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise SourceError(folder, "is not a folder", "name the folder of images with --images")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise SourceError(path, f"has the same stem as {found[path.stem].name}", "rename one of the two")
        found[path.stem] = path
    if not found:
        raise SourceError(folder, f"contains no {', '.join(IMAGE_SUFFIXES)} file", "put the images there")
    return found


def _matched(source: Path, folder: Path, found: Annotations, images: dict[str, Path]) -> dict[str, list[Shape]]:
    """Return the areas of each image by its stem; log images without annotations and annotations without an image."""
    by_name = {path.name: stem for stem, path in images.items()}
    # QuPath leaves out the whole ending `.ome.tif` when it names an export.
    without_ome = {stem.removesuffix(".ome"): stem for stem in images}
    shapes: dict[str, list[Shape]] = {}
    absent: list[str] = []
    for name, areas in found.shapes.items():
        last = name.replace("\\", "/").rsplit("/", 1)[-1]
        stem = by_name.get(last) or (last if last in images else without_ome.get(last, Path(last).stem))
        if stem not in images:
            absent.append(name)
        elif stem in shapes:
            raise SourceError(source, f"annotates {stem} twice", "give each image its own name")
        else:
            shapes[stem] = areas
    if not shapes:
        what = f"annotates none of the {len(images)} images in {folder}"
        first = f", such as {absent[0]}" if absent else ""
        remedy = "check --images; a GeoJSON file needs the name of its image, as in slide.geojson for slide.png"
        raise SourceError(source, f"{what}; it names {len(absent)} others{first}", remedy)
    if absent:
        logger.warning("%s: images that are not in %s: %d, such as %s", source, folder, len(absent), absent[0])
    alone = sorted(images.keys() - shapes.keys())
    if alone:
        logger.warning("%s: images without annotations get no mask: %d, such as %s", folder, len(alone), alone[0])
    for what, count in found.left_out.items():
        logger.warning("%s: annotations that are left out: %d (%s)", source, count, what)
    return dict(sorted(shapes.items()))


def _check_sizes(
    source: Path, found: Annotations, sizes: dict[str, tuple[int, int]], shapes: dict[str, list[Shape]]
) -> None:
    problems: list[BcssError] = []
    told = {Path(name.replace("\\", "/")).stem: size for name, size in found.sizes.items()}
    told |= {name: size for name, size in found.sizes.items() if name in sizes}
    for stem, areas in shapes.items():
        width, height = sizes[stem]
        if told.get(stem, sizes[stem]) != sizes[stem]:
            what = f"says that {stem} is {told[stem][0]} x {told[stem][1]} px, but it is {width} x {height} px"
            problems.append(SourceError(source, what, "give the images that were annotated"))
        elif any(area.is_far_outside(height, width) for area in areas):
            what = f"has an outline far outside {stem}, which is {width} x {height} px"
            problems.append(SourceError(source, what, "give coordinates in pixels of the image"))
    if problems:
        raise joined(source, problems)


def _codes(found: Annotations, shapes: dict[str, list[Shape]], class_map: tuple[ClassEntry, ...]) -> dict[str, int]:
    """Return the code of each class: from the class map, from the file, or numbered alphabetically from 1."""
    names = sorted({area.class_name for areas in shapes.values() for area in areas} | found.codes.keys())
    for name in names:
        if not name.isprintable() or not name.strip():
            # A lone surrogate in JSON text cannot be written to a file, and a line break would break the class map.
            raise SourceError(f"class {name!r}", "has a name with characters that cannot be shown", "rename it")
    given = {entry.name: entry.code for entry in class_map}
    if given:
        missing = [name for name in names if name not in given and name not in found.codes]
        used = {area.class_name for areas in shapes.values() for area in areas}
        missing += [name for name in sorted(used) if name not in given and name not in missing]
        if missing:
            raise ConfigError("--class-map", f"lacks the class {missing[0]}", "add it")
        return {name: given[name] for name in names if name in given}
    if not found.codes:
        return {name: number for number, name in enumerate(names, start=1)}
    without = [name for name in names if name not in found.codes]
    if without:
        what = f"is used, but the files that give codes give none to it; they know {', '.join(found.codes)}"
        raise SourceError(f"class {without[0]}", what, "give --class-map with a code for each class")
    return found.codes


def _write(
    path: Path, areas: list[Shape], size: tuple[int, int], codes: dict[str, int], drawn: DrawnMasks, *, instances: bool
) -> list[tuple[str, int, str]]:
    """Draw one mask, and return a row for each instance."""
    width, height = size
    values, classes = _values(areas, codes, instances=instances)
    highest = max(values if instances else [*values, *codes.values()], default=0)
    if highest > MAX_CODE:
        raise SourceError(path.stem, f"has {highest} instances, but a mask holds at most {MAX_CODE}", "cut the image")
    mask = np.zeros((height, width), np.uint8 if highest < 256 else np.uint16)
    names = {value: name for name, value in codes.items()} if not instances else classes
    # The number of the area that each pixel shows.
    shown = np.zeros((height, width), np.uint16 if len(areas) <= MAX_CODE else np.uint32)
    for number, (value, area) in enumerate(zip(values, areas, strict=True), start=1):
        window, pixels = area.pixels(height, width)
        part = mask[window]
        _count_covered(part[pixels], value, names, drawn.covered_px)
        part[pixels] = value
        shown[window][pixels] = number
        drawn.areas[area.class_name] += 1
    for number in set(range(1, len(areas) + 1)) - set(np.unique(shown).tolist()):
        window, pixels = areas[number - 1].pixels(height, width)
        # An area that another one of its class covers is still in the mask.
        drawn.hidden += not (mask[window][pixels] == values[number - 1]).any()
    drawn.images += 1
    left = set(np.unique(mask).tolist())
    Image.fromarray(mask).save(path)
    return [(path.stem, value, name) for value, name in sorted(classes.items()) if value in left]


def _values(areas: list[Shape], codes: dict[str, int], *, instances: bool) -> tuple[list[int], dict[int, str]]:
    """Return the mask value of each area, and the class of each instance."""
    if not instances:
        return [codes[area.class_name] for area in areas], {}
    groups: dict[object, int] = {}
    values = [
        groups.setdefault((area.class_name, area.group) if area.group is not None else number, len(groups) + 1)
        for number, area in enumerate(areas)
    ]
    return values, {value: area.class_name for value, area in zip(values, areas, strict=True)}


def _count_covered(
    below: NDArray[np.uint8 | np.uint16], value: int, names: dict[int, str], covered: Counter[tuple[str, str]]
) -> None:
    found, counts = np.unique(below, return_counts=True)
    for lower, count in zip(found.tolist(), counts.tolist(), strict=True):
        if lower not in (0, value):
            covered[names[lower], names[value]] += count


def _write_tables(folder: Path, plan: MaskPlan, rows: list[tuple[str, int, str]] | None) -> None:
    with (folder / CLASS_MAP_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["code", "name", "color"])
        seen: set[str] = set()
        for name, code in sorted(plan.codes.items(), key=lambda item: item[1]):
            color = f"#{bytes(plan.colors[name]).hex()}" if name in plan.colors else ""
            # A class map must not have the same color twice.
            writer.writerow([code, name, "" if color in seen else color])
            seen.add(color)
    if rows is not None:
        with (folder / INSTANCES_FILE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["frame_id", "id", "class"])
            writer.writerows(rows)
