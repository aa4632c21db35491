"""The classes of BCSS: the code that a mask's pixel holds, the name, and the color in pictures.

Source: the ground-truth code table of the data set (Amgad et al., Bioinformatics 2019,
doi:10.1093/bioinformatics/btz083).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Channel = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Channel, Channel, Channel]
"""Red, green and blue in sRGB, 0 to 255."""


class ClassInfo(BaseModel):
    """One class of a data set.

    Attributes:
        code: The pixel value in masks.
        name: The name; BCSS names have underscores instead of spaces.
        color: The color in pictures, sRGB.
    """

    model_config = ConfigDict(frozen=True)

    code: int = Field(ge=0, le=65535)
    name: str
    color: Color


BCSS_CLASSES: tuple[ClassInfo, ...] = tuple(
    ClassInfo(code=code, name=name, color=color)
    for code, (name, color) in enumerate(
        [
            ("outside_roi", (60, 60, 60)),
            ("tumor", (228, 26, 28)),
            ("stroma", (77, 175, 74)),
            ("lymphocytic_infiltrate", (55, 126, 184)),
            ("necrosis_or_debris", (255, 217, 47)),
            ("glandular_secretions", (166, 86, 40)),
            ("blood", (150, 0, 24)),
            ("exclude", (20, 20, 20)),
            ("metaplasia_NOS", (247, 129, 191)),
            ("fat", (240, 228, 200)),
            ("plasma_cells", (0, 200, 200)),
            ("other_immune_infiltrate", (120, 170, 220)),
            ("mucoid_material", (190, 174, 212)),
            ("normal_acinus_or_duct", (255, 127, 0)),
            ("lymphatics", (127, 201, 127)),
            ("undetermined", (128, 128, 128)),
            ("nerve", (230, 171, 2)),
            ("skin_adnexa", (102, 102, 0)),
            ("blood_vessel", (152, 78, 163)),
            ("angioinvasion", (231, 41, 138)),
            ("dcis", (117, 112, 179)),
            ("other", (170, 170, 170)),
        ]
    )
)

DEFAULT_CLASS_CODES: tuple[int, ...] = (1, 2, 3, 4, 18)
DEFAULT_IGNORE_CODES: tuple[int, ...] = (0, 7, 15)


def describe_class(code: int) -> ClassInfo:
    """Return the name and color of a code; a code outside BCSS gets the name `class_<code>` and a fixed color."""
    if code < len(BCSS_CLASSES):
        return BCSS_CLASSES[code]
    # Steps of the golden angle give neighboring codes distinct colors without a table.
    hue = (code * 137) % 256
    return ClassInfo(code=code, name=f"class_{code}", color=(hue, 255 - hue, (hue * 7) % 256))
