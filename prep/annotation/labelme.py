"""Read Labelme's JSON files: polygons, rectangles and circles; the shapes of a group form one instance.

Source: Labelme's `LabelFile`, version 5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from prep.annotation.shapes import Annotations, Polygon, Ring, Shape, ring
from schemas.errors import SourceError, first_fault
from schemas.limits import MAX_ROI_PX

CIRCLE_POINTS = 360
"""Number of corners of the polygon that approximates a circle."""


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True)

    label: str = Field(min_length=1)
    points: list[tuple[FiniteFloat, FiniteFloat]]
    shape_type: str = "polygon"
    group_id: int | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)

    shapes: list[_Shape]
    width: int | None = Field(default=None, alias="imageWidth", gt=0, le=MAX_ROI_PX)
    height: int | None = Field(default=None, alias="imageHeight", gt=0, le=MAX_ROI_PX)


def read_labelme(path: Path, content: dict[str, Any]) -> Annotations:
    """Read the content of a Labelme file, which has the name of its image.

    Args:
        path: The file.
        content: The file's parsed JSON.

    Raises:
        SourceError: The file is malformed.
    """
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise SourceError(path, f"is not a Labelme file ({first_fault(error)})", "save it again") from error
    found = Annotations()
    if file.width and file.height:
        found.sizes[path.stem] = (file.width, file.height)
    shapes = found.shapes.setdefault(path.stem, [])
    for number, shape in enumerate(file.shapes):
        if shape.shape_type not in ("polygon", "rectangle", "circle"):
            found.leave_out(f"{shape.shape_type} shapes")
            continue
        outline = _outline(shape)
        if outline is None:
            what = f"is a {shape.shape_type} of {len(shape.points)} points"
            raise SourceError(f"{path} shape {number}", what, "draw it again")
        group = None if shape.group_id is None else str(shape.group_id)
        shapes.append(Shape(shape.label, (Polygon(outline),), group=group))
    return found


def _outline(shape: _Shape) -> Ring | None:
    """The outline of a shape; None if it has too few points."""
    points = np.array(shape.points, np.float64).reshape(-1, 2)
    if shape.shape_type == "polygon":
        return ring(points)
    if len(points) != 2:
        return None
    if shape.shape_type == "rectangle":
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    # A circle is stored as its center and a point on the circle.
    angles = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
    radius = float(np.linalg.norm(points[1] - points[0]))
    return points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
