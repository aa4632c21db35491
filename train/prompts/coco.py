"""Read prompts from the boxes of a COCO file: x, y, width and height, measured from the corner of the first pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from schemas.errors import SourceError, first_fault
from train.prompts.image_names import file_names
from train.prompts.object_class import ObjectClass
from train.prompts.object_prompt import FORMATS_REMEDY, ObjectPrompt, PromptsByImage, checked_box


class _CocoImage(BaseModel):
    model_config = ConfigDict(frozen=True)
    id: int
    file_name: str
    width: Any = None
    height: Any = None


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


def coco_prompts(path: Path, content: Any) -> tuple[PromptsByImage, dict[str, tuple[int, int]]]:
    """Return the boxes of a COCO file as prompts, and the width and height of each image that states them.

    Args:
        path: The file, for messages.
        content: Its parsed content.

    Raises:
        SourceError: It is not a COCO file, or has a box that cannot be used.
    """
    try:
        coco = _Coco.model_validate(content)
    except ValidationError as error:
        raise SourceError(path, f"is not a COCO file ({first_fault(error)})", FORMATS_REMEDY) from error
    name_of = file_names(path, (image.file_name for image in coco.images))
    names = {image.id: name_of[image.file_name] for image in coco.images}
    kinds = {category.id: ObjectClass(category.name, code=category.id) for category in coco.categories}
    found: PromptsByImage = {name: [] for name in names.values()}
    for number, annotation in enumerate(coco.annotations, start=1):
        where = f"{path} annotation {number}"
        if annotation.image_id not in names:
            raise SourceError(where, "names an image that is not listed", "export it again")
        x, y, width, height = annotation.bbox
        kind = kinds.get(annotation.category_id) if annotation.category_id is not None else None
        box = checked_box(where, (x, y, x + width, y + height))
        found[names[annotation.image_id]].append(ObjectPrompt(str(number), box, (), kind))
    # Not every tool writes sizes, and some write other things in their place.
    stated = {names[image.id]: (image.width, image.height) for image in coco.images}
    return found, {name: size for name, size in stated.items() if all(type(px) is int and px > 0 for px in size)}
