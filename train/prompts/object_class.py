"""The class of an object that a user asked for or a model found."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.classes import Color

DEFAULT_COLOR: Color = (228, 26, 28)
"""Color of a class whose file gives none."""

NO_CLASS_COLOR: Color = (255, 221, 51)
"""Color of objects without a class in pictures."""


@dataclass(frozen=True)
class ObjectClass:
    """The class of an object.

    Attributes:
        name: Name of the class.
        color: Color of the class in pictures, sRGB.
        code: Its number in the COCO file or in the training data that it comes from; None if it has none.
    """

    name: str
    color: Color = DEFAULT_COLOR
    code: int | None = None
