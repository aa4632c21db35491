"""Read YOLO's segmentation labels: a text file for each image, with a class and an outline in each line.

Source: https://docs.ultralytics.com/datasets/segment. Coordinates there are fractions of the image's width and height.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from prep.annotation.shapes import Annotations, Polygon, Shape
from schemas.errors import SourceError
from schemas.limits import MAX_CODE
from schemas.text_file import read_text_file

_NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt")
_REMEDY = "each line is a class and an outline: 0 x1 y1 x2 y2 x3 y3"


def read_yolo(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> Annotations:
    """Read all label files of a folder.

    Names of classes come from `data.yaml` or `classes.txt` in the folder or above it. Class 0 gets code 1, since code 0
    is background in a mask.

    Args:
        folder: The folder of text files, each with the name of its image.
        sizes: Width and height of each image by its stem.

    Raises:
        SourceError: A line is not an outline, or the file with the class names is not YAML.
        ConfigError: A file is unreadable, too large or not UTF-8.
    """
    names = _class_names(folder)
    found = Annotations()
    for path in sorted(folder.glob("*.txt")):
        if path.name in _NAME_FILES:
            continue
        # If the image is missing, its size is unknown and the outlines cannot be drawn; the caller reports the image.
        size = sizes.get(path.stem, (1, 1))
        shapes = found.shapes.setdefault(path.stem, [])
        for number, line in enumerate(read_text_file(path, _REMEDY).splitlines(), start=1):
            if line.strip():
                code, outline = _parsed(f"{path} line {number}", line)
                name = names.get(code, f"class_{code}")
                if found.codes.setdefault(name, code + 1) != code + 1:
                    what = f"has the class {code}, whose name {name} is also that of the class {found.codes[name] - 1}"
                    raise SourceError(f"{path} line {number}", what, "give each class a name of its own")
                shapes.append(Shape(name, (Polygon(outline * np.array(size)),)))
    return found


def _parsed(where: str, line: str) -> tuple[int, Any]:
    try:
        number, *values = [float(part) for part in line.split()]
    except ValueError as error:
        raise SourceError(where, "is not a row of numbers", _REMEDY) from error
    if not 0 <= number < MAX_CODE or number != int(number):
        raise SourceError(where, f"has the class {number}", "classes are whole numbers from 0 on")
    if len(values) == 4:
        raise SourceError(where, "is a box, not an outline", "export the labels for segmentation")
    if len(values) < 6 or len(values) % 2 or not all(math.isfinite(value) for value in values):
        raise SourceError(where, f"has {len(values)} coordinates", _REMEDY)
    return int(number), np.array(values).reshape(-1, 2)


def _class_names(folder: Path) -> dict[int, str]:
    for place in (folder, folder.parent, folder.parent.parent):
        for name in _NAME_FILES:
            path = place / name
            if path.is_file():
                return _names_in(path)
    return {}


def _names_in(path: Path) -> dict[int, str]:
    text = read_text_file(path, "give the names of the classes")
    if path.suffix == ".txt":
        return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    try:
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SourceError(path, "is not YAML", "give the names of the classes in `names`") from error
    names: Any = cast("dict[str, Any]", content).get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(cast("list[Any]", names))}
    if isinstance(names, dict):
        return {int(number): str(name) for number, name in cast("dict[Any, Any]", names).items() if _is_number(number)}
    return {}


def _is_number(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdigit())
