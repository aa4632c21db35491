"""Read COCO's instance annotations: polygons, and compressed or uncompressed run lengths.

Source: the format's page, https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from prep.annotation.runs import checked_runs
from prep.annotation.shapes import Annotations, Polygon, Shape, ring
from schemas.errors import SourceError, first_fault
from schemas.limits import MAX_CODE, MAX_ROI_PX

logger = logging.getLogger(__name__)


class _Image(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: int
    file_name: str
    width: int = Field(gt=0, le=MAX_ROI_PX)
    height: int = Field(gt=0, le=MAX_ROI_PX)


class _Runs(BaseModel):
    model_config = ConfigDict(frozen=True)

    size: tuple[int, int]
    counts: str | list[int]


class _Annotation(BaseModel):
    model_config = ConfigDict(frozen=True)

    image_id: int
    category_id: int
    segmentation: list[list[FiniteFloat]] | _Runs | None = None
    iscrowd: int = 0


class _Category(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: int
    name: str = Field(min_length=1)


class _Coco(BaseModel):
    model_config = ConfigDict(frozen=True)

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(path: Path, content: dict[str, Any]) -> Annotations:
    """Read the content of a COCO file.

    Args:
        path: The file, for messages.
        content: The file's parsed JSON.

    Raises:
        SourceError: The file is malformed, or names an image or a category that it does not list.
    """
    try:
        coco = _Coco.model_validate(content)
    except ValidationError as error:
        raise _malformed(path, error) from error
    names = {category.id: category.name for category in coco.categories}
    images = {image.id: image for image in coco.images}
    found = Annotations(
        shapes={image.file_name: [] for image in coco.images},
        sizes={image.file_name: (image.width, image.height) for image in coco.images},
    )
    if len(set(names.values())) < len(coco.categories) or len(found.shapes) < len(coco.images):
        raise SourceError(path, "lists a category or an image twice", "give each its own id and name")
    found.codes = _codes(path, names)
    for number, annotation in enumerate(coco.annotations):
        where = f"{path} annotation {number}"
        image, name = images.get(annotation.image_id), names.get(annotation.category_id)
        if image is None or name is None:
            what = f"image {annotation.image_id}" if image is None else f"category {annotation.category_id}"
            raise SourceError(where, f"names {what}, which the file does not list", "export the file again")
        shape = _shape(where, annotation, name, (image.height, image.width))
        if shape is None:
            found.leave_out("only a box or keypoints")
        else:
            found.shapes[image.file_name].append(shape)
    return found


def _codes(path: Path, names: dict[int, str]) -> dict[str, int]:
    """Return the code of each category: its id, or the next number if an id is 0, which is background in a mask."""
    first = min(names, default=1)
    shift = 1 if first == 0 else 0
    if first < 0 or max(names, default=1) + shift > MAX_CODE:
        logger.info("%s: its ids cannot be codes of a mask, so its categories are numbered by name", path)
        return {name: number for number, name in enumerate(sorted(names.values()), start=1)}
    if shift:
        logger.info("%s: it has a category 0, so each code is the id of its category plus 1", path)
    return {name: number + shift for number, name in names.items()}


def _shape(where: str, annotation: _Annotation, name: str, size: tuple[int, int]) -> Shape | None:
    is_crowd, outline = bool(annotation.iscrowd), annotation.segmentation
    if isinstance(outline, _Runs):
        runs = checked_runs(outline.counts, size) if outline.size == size else None
        if runs is None:
            what = f"has run lengths that do not fill its image of {size[1]} x {size[0]} px"
            raise SourceError(where, what, "export the file again")
        return Shape(name, runs=runs, is_crowd=is_crowd)
    if not outline:
        return None
    rings = [ring(part) if len(part) % 2 == 0 else None for part in outline]
    parts = tuple(Polygon(part) for part in rings if part is not None)
    if len(parts) < len(rings):
        raise SourceError(where, "has an outline of fewer than three points", "export the file again")
    return Shape(name, parts, is_crowd=is_crowd)


def _malformed(path: Path, error: ValidationError) -> SourceError:
    return SourceError(path, f"is not a COCO file ({first_fault(error)})", "export it again")
