"""Read prompts from GeoJSON as QuPath writes it: areas become boxes, and points become clicks.

Coordinates are x, y, measured from the corner of the first pixel.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from geojson_pydantic import GeometryCollection, MultiPoint, MultiPolygon, Point, Polygon

from schemas.errors import SourceError
from schemas.geojson import classification, read_features
from train.prompts.object_class import DEFAULT_COLOR, ObjectClass
from train.prompts.object_prompt import ObjectPrompt, Xy, checked_box

logger = logging.getLogger(__name__)

NEGATIVE = "negative"
"""Class name that marks points as negative clicks. QuPath's ignored classes, whose names end in *, do the same."""


def geojson_prompts(path: Path, content: Any) -> list[ObjectPrompt]:
    """Return the prompts of a GeoJSON file: areas become boxes, and points become clicks.

    Args:
        path: The file, for messages.
        content: Its parsed content.

    Raises:
        SourceError: It is not GeoJSON, or has an area or a point that cannot be used.
    """
    objects: list[ObjectPrompt] = []
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
            left, top, right, bottom = (float(value) for value in (*corners.min(0), *corners.max(0)))
            box = checked_box(f"{path} feature {number}", (left, top, right, bottom))
            objects.append(ObjectPrompt(name, box, (), kind))
        elif isinstance(geometry, Point | MultiPoint):
            points = [geometry.coordinates] if isinstance(geometry, Point) else geometry.coordinates
            clicks = [(float(point[0]), float(point[1])) for point in points]
            if is_negative:
                negatives += clicks
            elif clicks:
                objects.append(ObjectPrompt(name, None, tuple((xy, True) for xy in clicks), kind))
        elif isinstance(geometry, GeometryCollection):
            left_out["collections of several shapes"] += 1
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


def _check_finite(path: Path, objects: list[ObjectPrompt], negatives: list[Xy]) -> None:
    values = [value for asked in objects for value in (asked.box or ())]
    values += [value for asked in objects for xy, _ in asked.points for value in xy]
    values += [value for xy in negatives for value in xy]
    if not np.isfinite(np.array(values)).all():
        raise SourceError(path, "has a coordinate that is not a finite number", "export it again")


def _with_negatives(path: Path, objects: list[ObjectPrompt], negatives: list[Xy]) -> list[ObjectPrompt]:
    """Add each negative click to the smallest box around it, or else to the object with the nearest click or box."""
    if negatives and not objects:
        raise SourceError(path, "has negative points but no object", "add a box or a point on the object")
    added: dict[int, list[tuple[Xy, bool]]] = {}
    for x, y in negatives:
        distances = [_distance(asked, x, y) for asked in objects]
        added.setdefault(int(np.lexsort(np.array(distances).T[::-1])[0]), []).append(((x, y), False))
    return [replace(asked, points=asked.points + tuple(added.get(n, ()))) for n, asked in enumerate(objects)]


def _distance(asked: ObjectPrompt, x: float, y: float) -> tuple[float, float]:
    """Return the squared distance of a point from an object, and the area of the object's box, 0 without a box."""
    left, top, right, bottom = asked.extent
    if asked.box is None:
        return min((x - px) ** 2 + (y - py) ** 2 for px, py in asked.positive), 0.0
    away = max(left - x, 0, x - right) ** 2 + max(top - y, 0, y - bottom) ** 2
    return away, (right - left) * (bottom - top)
