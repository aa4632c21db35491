"""Read the features of a GeoJSON file, and their classes as QuPath writes them.

Source: RFC 7946, and the fields of QuPath's exports (`classification` with `name` and `color`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from geojson_pydantic import Feature, FeatureCollection
from geojson_pydantic.geometries import Geometry
from pydantic import ValidationError

from schemas.classes import Color
from schemas.errors import SourceError

GeoFeature = Feature[Geometry, dict[str, Any]]
_Collection = FeatureCollection[GeoFeature]


def is_geojson(content: object) -> bool:
    """Return whether JSON looks like GeoJSON: a collection, a feature, or a list of features."""
    if isinstance(content, list):
        rows = cast("list[Any]", content)
        return bool(rows) and isinstance(rows[0], dict) and cast("dict[str, Any]", rows[0]).get("type") == "Feature"
    return isinstance(content, dict) and cast("dict[str, Any]", content).get("type") in ("FeatureCollection", "Feature")


def read_features(path: Path, content: Any) -> Sequence[GeoFeature]:
    """Read the features of a collection, of a single feature, or of a list of features.

    Args:
        path: The file, for messages.
        content: The file's parsed JSON; this function adds missing `properties` to it.

    Raises:
        SourceError: The content is not GeoJSON.
    """
    rows: Any = content
    if isinstance(content, dict):
        single = cast("dict[str, Any]", content)
        rows = single.get("features") if single.get("type") == "FeatureCollection" else [single]
    # QuPath omits `properties` from a feature that has none.
    for row in cast("list[Any]", rows) if isinstance(rows, list) else []:
        if isinstance(row, dict):
            cast("dict[str, Any]", row).setdefault("properties", None)
    try:
        with warnings.catch_warnings():
            # The library warns of collections that hold one geometry, or other collections.
            warnings.simplefilter("ignore", UserWarning)
            return _Collection.model_validate({"type": "FeatureCollection", "features": rows}).features
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][:3])
        raise SourceError(path, f"is not GeoJSON ({place}: {first['msg']})", "export it again") from error


def classification(properties: Mapping[str, Any]) -> tuple[str, Color | None]:
    """Return the name and color of a feature's class; a missing name is empty, and a missing color is None.

    Args:
        properties: The properties of the feature.
    """
    found = properties.get("classification")
    given = cast("dict[str, Any]", found) if isinstance(found, dict) else {"name": found}
    name, color, names = given.get("name"), given.get("color"), given.get("names")
    if not isinstance(name, str):
        name = ": ".join(map(str, cast("list[Any]", names))) if isinstance(names, list) else ""
    channels = cast("list[Any]", color) if isinstance(color, list) else []
    if len(channels) == 3 and all(isinstance(value, int) and 0 <= value <= 255 for value in channels):
        return name, (channels[0], channels[1], channels[2])
    return name, None
