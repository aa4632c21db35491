"""Read QuPath's GeoJSON exports: classified annotations and detections, which may have holes and several parts.

Source: RFC 7946, and the fields that QuPath writes (`objectType`, `classification` with `name` and `color`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from geojson_pydantic import MultiPolygon
from geojson_pydantic import Polygon as GeoPolygon
from geojson_pydantic.geometries import Geometry, GeometryCollection

from prep.annotation.shapes import Annotations, Polygon, Shape
from schemas.errors import SourceError
from schemas.geojson import classification, read_features

UNNAMED = "object"
"""The class of all areas of a file if none of its areas has a classification."""

_REGION = "Region*"


def read_geojson(path: Path, content: Any) -> Annotations:
    """Read the content of a GeoJSON file, which has the name of its image.

    Args:
        path: The file.
        content: The file's parsed JSON.

    Raises:
        SourceError: The file is malformed.
    """
    found = Annotations()
    shapes: list[Shape] = []
    unnamed: list[tuple[Polygon, ...]] = []
    for number, feature in enumerate(read_features(path, content)):
        polygons = _polygons(f"{path} feature {number}", feature.geometry)
        if polygons is None:
            found.leave_out("points and lines")
            continue
        name, color = classification(feature.properties or {})
        if not name:
            unnamed.append(polygons)
            continue
        if name == _REGION:
            found.leave_out("areas of QuPath's class Region*, which marks a part of the image")
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


def _polygons(where: str, geometry: Geometry | None) -> tuple[Polygon, ...] | None:
    """The polygons of a geometry and of the geometries in it; None if there are only points and lines."""
    if isinstance(geometry, GeometryCollection):
        inside = [_polygons(where, part) or () for part in geometry.geometries]
        return tuple(polygon for polygons in inside for polygon in polygons) or None
    if isinstance(geometry, GeoPolygon):
        parts = [geometry.coordinates]
    elif isinstance(geometry, MultiPolygon):
        parts = geometry.coordinates
    else:
        return None
    polygons = tuple(Polygon(*_rings(rings)) for rings in parts if rings)
    lines = [line for polygon in polygons for line in (polygon.outer, *polygon.holes)]
    if not all(np.isfinite(line).all() for line in lines):
        raise SourceError(where, "has a coordinate that is not a number", "export it again")
    return polygons or None


def _rings(rings: Any) -> Iterator[Any]:
    outer, *holes = (np.array([point[:2] for point in ring], np.float64) for ring in rings)
    yield outer
    yield tuple(holes)
