"""Read GeoJSON as QuPath exports it: annotations and detections with a classification, with holes, in several parts.

Source: RFC 7946, and the fields that QuPath writes (`objectType`, `classification` with `name` and `color`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from geojson_pydantic import Feature, FeatureCollection, MultiPolygon
from geojson_pydantic import Polygon as GeoPolygon
from geojson_pydantic.geometries import Geometry
from pydantic import ValidationError

from prep.annotation.shapes import Annotations, Polygon, Shape
from schemas.classes import Color
from schemas.errors import SourceError

UNNAMED = "object"
"""The class of all areas of a file in which none has a classification."""

_Feature = Feature[Geometry, dict[str, Any]]
_Collection = FeatureCollection[_Feature]


def is_geojson(content: object) -> bool:
    """Return whether JSON looks like GeoJSON: a collection, a feature, or a list of features."""
    if isinstance(content, list):
        rows = cast("list[Any]", content)
        return bool(rows) and isinstance(rows[0], dict) and cast("dict[str, Any]", rows[0]).get("type") == "Feature"
    return isinstance(content, dict) and cast("dict[str, Any]", content).get("type") in ("FeatureCollection", "Feature")


def read_geojson(path: Path, content: Any) -> Annotations:
    """Read the content of a GeoJSON file, whose name is that of its image.

    Args:
        path: The file.
        content: Its JSON.

    Raises:
        SourceError: It is malformed.
    """
    found = Annotations()
    shapes: list[Shape] = []
    unnamed: list[tuple[Polygon, ...]] = []
    for number, feature in enumerate(_features(path, content)):
        polygons = _polygons(f"{path} feature {number}", feature.geometry)
        if polygons is None:
            found.leave_out("points and lines")
            continue
        name, color = _classification(feature.properties or {})
        if not name:
            unnamed.append(polygons)
            continue
        if color is not None:
            found.colors.setdefault(name, color)
        shapes.append(Shape(name, polygons))
    if shapes:
        for _ in unnamed:
            found.leave_out("areas without a class")
    else:
        shapes = [Shape(UNNAMED, polygons) for polygons in unnamed]
    found.shapes[path.stem] = shapes
    return found


def _features(path: Path, content: Any) -> Sequence[_Feature]:
    rows: Any = content
    if isinstance(content, dict) and cast("dict[str, Any]", content).get("type") == "FeatureCollection":
        rows = cast("dict[str, Any]", content).get("features")
    elif isinstance(content, dict):
        rows = [content]
    # QuPath leaves the properties out where there are none.
    for row in cast("list[Any]", rows) if isinstance(rows, list) else []:
        if isinstance(row, dict):
            cast("dict[str, Any]", row).setdefault("properties", None)
    try:
        return _Collection.model_validate({"type": "FeatureCollection", "features": rows}).features
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][:3])
        raise SourceError(path, f"is not GeoJSON ({place}: {first['msg']})", "export it again") from error


def _polygons(where: str, geometry: Geometry | None) -> tuple[Polygon, ...] | None:
    """The polygons of a geometry; None for points and lines."""
    if isinstance(geometry, GeoPolygon):
        parts = [geometry.coordinates]
    elif isinstance(geometry, MultiPolygon):
        parts = geometry.coordinates
    else:
        return None
    polygons = tuple(Polygon(*_rings(rings)) for rings in parts if rings)
    if not all(np.isfinite(polygon.outer).all() for polygon in polygons):
        raise SourceError(where, "has a coordinate that is no number", "export it again")
    return polygons or None


def _rings(rings: Any) -> Iterator[Any]:
    outer, *holes = (np.array([point[:2] for point in ring], np.float64) for ring in rings)
    yield outer
    yield tuple(holes)


def _classification(properties: dict[str, Any]) -> tuple[str, Color | None]:
    """Name and color of a feature's class; an empty name without one."""
    found: Any = properties.get("classification")
    if isinstance(found, str):
        return found, None
    if not isinstance(found, dict):
        return "", None
    given = cast("dict[str, Any]", found)
    name, color = given.get("name"), given.get("color")
    if isinstance(given.get("names"), list) and not name:
        name = ": ".join(str(part) for part in given["names"])
    is_color = isinstance(color, list) and len(cast("list[Any]", color)) == 3
    channels = cast("list[Any]", color) if is_color else []
    if is_color and all(isinstance(channel, int) and 0 <= channel <= 255 for channel in channels):
        return str(name or ""), (channels[0], channels[1], channels[2])
    return str(name or ""), None
