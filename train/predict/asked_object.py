"""Read prompts: boxes and clicks that each ask for one object.

Coordinates are x, y. In memory they are measured from the corner of the first pixel, so the center of pixel 0 is at
0.5. The right and bottom of a box are exclusive.
Axes: K points.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from geojson_pydantic import MultiPoint, MultiPolygon, Point, Polygon
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from schemas.command.settings_file import read_settings_file
from schemas.errors import SourceError
from schemas.geojson import classification, read_features
from train.predict.found_object import ObjectClass

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 1 << 30
DEFAULT_COLOR = (228, 26, 28)
NEGATIVE = "negative"
"""Class name that marks points as negative clicks. QuPath's ignored classes, whose names end in *, do the same."""

Xy = tuple[float, float]
Area = tuple[float, float, float, float]
"""Left, top, right and bottom."""

_REMEDY = "give GeoJSON, CSV (image,object,x,y,label or image,object,x0,y0,x1,y1) or COCO boxes"


def is_in(xy: Xy, area: Area) -> bool:
    """Return whether a click lies in an area."""
    left, top, right, bottom = area
    return left <= xy[0] < right and top <= xy[1] < bottom


@dataclass(frozen=True)
class AskedObject:
    """The prompt of one object.

    Attributes:
        name: Name of the object; its number in the file if the file gives no name.
        box: Left, top, right and bottom; None without a box.
        points: Clicks, each with True if it is on the object and False if it is not.
        kind: Class of the object; None if it is not known.
    """

    name: str
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[Xy, bool], ...] = ()
    kind: ObjectClass | None = None

    @property
    def positive(self) -> list[Xy]:
        """The clicks on the object."""
        return [xy for xy, is_on in self.points if is_on]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """The box, or the box around the positive clicks."""
        if self.box is not None:
            return self.box
        xs, ys = zip(*self.positive, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def shifted(self, x: float, y: float) -> AskedObject:
        """Return the object with its box and clicks moved."""
        box = None
        if self.box is not None:
            box = (self.box[0] + x, self.box[1] + y, self.box[2] + x, self.box[3] + y)
        return replace(self, box=box, points=tuple(((px + x, py + y), is_on) for (px, py), is_on in self.points))

    def inside(self, area: Area) -> AskedObject | None:
        """Return the object without the clicks outside an area; None if no box and no click on it is inside."""
        kept = replace(self, points=tuple((xy, is_on) for xy, is_on in self.points if is_in(xy, area)))
        if self.box is None:
            return kept if kept.positive else None
        left, top, right, bottom = area
        touches = self.box[0] < right and self.box[2] > left and self.box[1] < bottom and self.box[3] > top
        return kept if touches else None


Asked = dict[str, list[AskedObject]]
"""The prompts of each image, by the name or stem of its file; an empty name stands for the only image."""


def read_prompts(path: Path) -> Asked:
    """Read prompts.

    Args:
        path: A GeoJSON, COCO or CSV file, or a folder of GeoJSON files, each named like its image.

    Raises:
        SourceError: A file cannot be used, or holds no prompt.
        ConfigError: A file cannot be read.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Asked, bool]:
    """Return the prompts, and whether they are QuPath's."""
    is_qupath = False
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".geojson", ".json"))
        found, is_qupath = {file.stem: _of_geojson(file, _json(file)) for file in files}, True
    elif path.suffix.lower() in (".csv", ".tsv"):
        found = _of_csv(path)
    else:
        content = _json(path)
        is_qupath = not (isinstance(content, dict) and "images" in content and "annotations" in content)
        found = {"": _of_geojson(path, content)} if is_qupath else _of_coco(path, content)
    if not any(found.values()):
        raise SourceError(path, "holds no prompt", _REMEDY)
    return found, is_qupath


def _json(path: Path) -> Any:
    try:
        return json.loads(read_settings_file(path, _REMEDY, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise SourceError(path, f"is not JSON ({error})", _REMEDY) from error


def _of_geojson(path: Path, content: Any) -> list[AskedObject]:
    """Return the prompts of a GeoJSON file: areas become boxes, and points become clicks."""
    objects: list[AskedObject] = []
    negatives: list[Xy] = []
    left_out: Counter[str] = Counter()
    for number, feature in enumerate(read_features(path, content), start=1):
        properties = feature.properties or {}
        kind, is_negative = _kind(properties)
        name = str(properties.get("name") or number)
        geometry = feature.geometry
        if isinstance(geometry, Polygon | MultiPolygon) and is_negative:
            left_out["areas of an ignored or negative class"] += 1
        elif isinstance(geometry, Polygon | MultiPolygon):
            parts = [geometry.coordinates] if isinstance(geometry, Polygon) else geometry.coordinates
            corners = np.array([point[:2] for rings in parts for outer in rings[:1] for point in outer], np.float64)
            if not len(corners):
                raise SourceError(
                    f"{path} feature {number}", "has an area without a corner", "remove it, or draw it again"
                )
            (left, top), (right, bottom) = corners.min(0), corners.max(0)
            objects.append(AskedObject(name, (float(left), float(top), float(right), float(bottom)), (), kind))
        elif isinstance(geometry, Point | MultiPoint):
            points = [geometry.coordinates] if isinstance(geometry, Point) else geometry.coordinates
            clicks = [(float(point[0]), float(point[1])) for point in points]
            if is_negative:
                negatives += clicks
            elif clicks:
                objects.append(AskedObject(name, None, tuple((xy, True) for xy in clicks), kind))
        else:
            left_out["neither an area nor a point"] += 1
    for what, count in left_out.items():
        logger.warning("%s: annotations that are left out: %d (%s)", path, count, what)
    _check_finite(path, objects, negatives)
    return _with_negatives(path, objects, negatives)


def _kind(properties: Mapping[str, Any]) -> tuple[ObjectClass | None, bool]:
    """Return the class of a feature, and whether its points are negative clicks."""
    name, color = classification(properties)
    if not name:
        return None, False
    return ObjectClass(name, color or DEFAULT_COLOR), name.lower() == NEGATIVE or name.endswith("*")


def _check_finite(path: Path, objects: list[AskedObject], negatives: list[Xy]) -> None:
    values = [value for asked in objects for value in (asked.box or ())]
    values += [value for asked in objects for xy, _ in asked.points for value in xy]
    values += [value for xy in negatives for value in xy]
    if not np.isfinite(np.array(values)).all():
        raise SourceError(path, "has a coordinate that is not a finite number", "export it again")


def _with_negatives(path: Path, objects: list[AskedObject], negatives: list[Xy]) -> list[AskedObject]:
    """Add each negative click to the smallest box around it, or else to the object with the nearest click or box."""
    if negatives and not objects:
        raise SourceError(path, "has negative points but no object", "add a box or a point on the object")
    added: dict[int, list[tuple[Xy, bool]]] = {}
    for x, y in negatives:
        distances = [_distance(asked, x, y) for asked in objects]
        added.setdefault(int(np.lexsort(np.array(distances).T[::-1])[0]), []).append(((x, y), False))
    return [replace(asked, points=asked.points + tuple(added.get(n, ()))) for n, asked in enumerate(objects)]


def _distance(asked: AskedObject, x: float, y: float) -> tuple[float, float]:
    """Return the squared distance of a point from an object, and the area of the object's box, 0 without a box."""
    left, top, right, bottom = asked.extent
    if asked.box is None:
        return min((x - px) ** 2 + (y - py) ** 2 for px, py in asked.positive), 0.0
    away = max(left - x, 0, x - right) ** 2 + max(top - y, 0, y - bottom) ** 2
    return away, (right - left) * (bottom - top)


def _of_csv(path: Path) -> Asked:
    """Return the prompts of a table. Its coordinates are pixel indices, and a box includes its last pixel."""
    text = read_settings_file(path, _REMEDY)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise SourceError(path, f"cannot be read ({error})", _REMEDY) from error
    columns = set(rows[0][1]) if rows else set[str]()
    if rows and not ({"object", "x", "y"} <= columns or {"object", "x0", "y0", "x1", "y1"} <= columns):
        raise SourceError(path, "lacks a required column", _REMEDY)
    found: dict[tuple[str, str, int], AskedObject] = {}
    for number, row in rows:
        where = f"{path} line {number}"
        cells = {key: (value or "").strip() for key, value in row.items() if key}
        # Each row without a name is an object of its own.
        key = (Path(cells.get("image", "")).name, cells["object"], 0 if cells["object"] else number)
        kind = ObjectClass(cells["class"], DEFAULT_COLOR) if cells.get("class") else None
        asked = found.get(key) or AskedObject(cells["object"] or str(number), None, (), kind)
        if cells.get("x0"):
            x0, y0, x1, y1 = (_number(where, cells, name) for name in ("x0", "y0", "x1", "y1"))
            if asked.box is not None:
                what = f"gives the object {asked.name} of this image a second box"
                raise SourceError(where, what, "give each object its own name, or none")
            asked = replace(asked, box=_checked_box(where, (x0, y0, x1 + 1, y1 + 1)))
        if cells.get("x"):
            xy = _number(where, cells, "x") + 0.5, _number(where, cells, "y") + 0.5
            label = cells.get("label") or "1"
            if label not in ("0", "1"):
                raise SourceError(where, f"has label {label!r}", "give 1 for a click on the object, 0 for one off it")
            asked = replace(asked, points=(*asked.points, (xy, label == "1")))
        found[key] = asked
    objects: Asked = {}
    for (image, *_), asked in found.items():
        if asked.box is None and not asked.positive:
            raise SourceError(
                path, f"gives the object {asked.name} neither a box nor a click on it", "add a box or a click"
            )
        objects.setdefault(image, []).append(asked)
    if "" in objects and len(objects) > 1:
        raise SourceError(path, "names an image in some rows only", "name the image in every row, or in none")
    return objects


def _number(where: str, cells: Mapping[str, str], name: str) -> float:
    try:
        value = float(cells.get(name, ""))
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise SourceError(where, f"has {name} {cells.get(name)!r}", "give a number of pixels")
    return value


def _checked_box(where: str, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        what = f"has a box of {right - left:g} x {bottom - top:g} px"
        raise SourceError(where, what, "give a box of at least one pixel, with its left and top first")
    return box


class _CocoImage(BaseModel):
    model_config = ConfigDict(frozen=True)
    id: int
    file_name: str


class _CocoBox(BaseModel):
    model_config = ConfigDict(frozen=True)
    image_id: int
    category_id: int | None = None
    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class _CocoCategory(BaseModel):
    model_config = ConfigDict(frozen=True)
    id: int
    name: str


class _Coco(BaseModel):
    model_config = ConfigDict(frozen=True)
    images: list[_CocoImage]
    annotations: list[_CocoBox]
    categories: list[_CocoCategory] = Field(default_factory=list[_CocoCategory])


def _of_coco(path: Path, content: Any) -> Asked:
    """Return the boxes of a COCO file as prompts."""
    try:
        coco = _Coco.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SourceError(path, f"is not a COCO file ({place}: {first['msg']})", _REMEDY) from error
    names = {image.id: Path(image.file_name.replace("\\", "/")).name for image in coco.images}
    kinds = {category.id: ObjectClass(category.name, DEFAULT_COLOR) for category in coco.categories}
    found: Asked = {name: [] for name in names.values()}
    for number, annotation in enumerate(coco.annotations, start=1):
        where = f"{path} annotation {number}"
        if annotation.image_id not in names:
            raise SourceError(where, "names an image that is not listed", "export it again")
        x, y, width, height = annotation.bbox
        kind = kinds.get(annotation.category_id) if annotation.category_id is not None else None
        box = _checked_box(where, (x, y, x + width, y + height))
        found[names[annotation.image_id]].append(AskedObject(str(number), box, (), kind))
    return found


@dataclass
class PromptsOfImages:
    """The prompts of several images, and a record of which were used.

    Attributes:
        path: Path of the prompts, for messages.
        asked: The prompts by the name of their image.
        is_qupath: Whether they are in GeoJSON, whose coordinates count from where QuPath's do.
        used: Names of the images whose prompts were used.
    """

    path: Path
    asked: Asked
    is_qupath: bool = False
    used: set[str] = field(default_factory=set[str])

    @classmethod
    def read(cls, path: Path) -> PromptsOfImages:
        """Read prompts; see `read_prompts`."""
        return cls(path, *_read(path))

    def of(self, image: Path, *, alone: bool) -> list[AskedObject]:
        """Return the prompts of an image.

        Args:
            image: Path of the image.
            alone: Whether it is the only image. Then prompts need not name it, but must not name another.
        """
        # A table may name an image with its suffix in one row and without it in another.
        names = [image.name, image.stem, *([""] if alone else [])]
        own = [name for name in dict.fromkeys(names) if name in self.asked]
        self.used.update(own)
        return [item for name in own for item in self.asked[name]]
