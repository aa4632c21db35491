"""Read prompts from a CSV or TSV table.

Coordinates in the table are pixel indices, x, y, and a box includes its last pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from schemas.errors import SourceError
from schemas.text_file import read_table
from train.prompts.image_names import file_names
from train.prompts.object_class import ObjectClass
from train.prompts.object_prompt import FORMATS_REMEDY, ObjectPrompt, PromptsByImage, checked_box


def table_prompts(path: Path) -> PromptsByImage:
    """Return the prompts of a table; the rows of one image and one object name are one object.

    Raises:
        SourceError: It is not a table, lacks a column, or has a row that cannot be used.
        ConfigError: It cannot be read.
    """
    rows = read_table(path, FORMATS_REMEDY)
    columns = set(rows[0][1]) if rows else set[str]()
    if rows and not ({"object", "x", "y"} <= columns or {"object", "x0", "y0", "x1", "y1"} <= columns):
        what = f"has the columns {', '.join(rows[0][1])}, but needs object, x, y or object, x0, y0, x1, y1"
        raise SourceError(path, what, FORMATS_REMEDY)
    name_of = file_names(path, (row.get("image", "") for _, row in rows))
    found: dict[tuple[str, str | int], ObjectPrompt] = {}
    for number, cells in rows:
        where = f"{path} line {number}"
        # Each row without a name is an object of its own.
        key = (name_of[cells.get("image", "")], cells["object"] or number)
        kind = ObjectClass(cells["class"]) if cells.get("class") else None
        asked = found.get(key) or ObjectPrompt(cells["object"] or str(number), None, (), kind)
        if kind is not None and asked.kind not in (None, kind):
            raise SourceError(where, f"gives the object {asked.name} a second class, {kind.name}", "keep one of them")
        asked = replace(asked, kind=asked.kind or kind)
        if cells.get("x0"):
            x0, y0, x1, y1 = (_number(where, cells, name) for name in ("x0", "y0", "x1", "y1"))
            if asked.box is not None:
                what = f"gives the object {asked.name} of this image a second box"
                raise SourceError(where, what, "give each object its own name, or none")
            asked = replace(asked, box=checked_box(where, (x0, y0, x1 + 1, y1 + 1)))
        if cells.get("x"):
            xy = _number(where, cells, "x") + 0.5, _number(where, cells, "y") + 0.5
            label = cells.get("label") or "1"
            if label not in ("0", "1"):
                raise SourceError(where, f"has label {label!r}", "give 1 for a click on the object, 0 for one off it")
            asked = replace(asked, points=(*asked.points, (xy, label == "1")))
        found[key] = asked
    objects: PromptsByImage = {}
    for (image, _), asked in found.items():
        if asked.box is None and not asked.positive:
            raise SourceError(
                path, f"gives the object {asked.name} neither a box nor a click on it", "add a box or a click"
            )
        objects.setdefault(image, []).append(asked)
    if "" in objects and len(objects) > 1:
        raise SourceError(path, "names an image in some rows only", "name the image in every row, or in none")
    return objects


def _number(where: str, cells: Mapping[str, str], name: str) -> float:
    try:
        value = float(cells.get(name, ""))
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise SourceError(where, f"has {name} {cells.get(name)!r}", "give a number of pixels")
    return value
