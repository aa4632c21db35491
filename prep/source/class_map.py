"""Read a class map: a file that merges class codes, or names the classes of another data set.

A table, with tabs, semicolons or commas, has a header with `code` (or `GT_code`) and `name` (or `label`), and
optionally `into` (the code into which this code is merged) and `color` (`#rrggbb`). A JSON file holds a list of such
objects, an object of merges like `{"19": 1}`, or the `labels` of nnU-Net's `dataset.json`.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.classes import ClassInfo, Color, describe_class
from schemas.errors import ConfigError, first_fault
from schemas.text_file import delimiter_of, read_text_file

_ALIASES = {"GT_code": "code", "label": "name"}


class ClassEntry(BaseModel):
    """One line of a class map.

    Attributes:
        code: The pixel value.
        name: Name of the class; unless given, its name in BCSS or `class_<code>`.
        into: The code that it counts as; unless given, its own code.
        color: Color in pictures, sRGB; unless given, its color in BCSS or another fixed color.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: int = Field(ge=0, le=65535)
    name: str = ""
    into: int | None = Field(default=None, ge=0, le=65535)
    color: Color | None = None

    @field_validator("color", mode="before")
    @classmethod
    def _parse_color(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(bytes.fromhex(value.removeprefix("#"))) if value else None
        return value

    @field_validator("into", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return None if value == "" else value

    def info(self) -> ClassInfo:
        """Return the name and color; those of BCSS if the map gives none."""
        default = describe_class(self.code)
        return ClassInfo(code=self.code, name=self.name or default.name, color=self.color or default.color)


def read_class_map(path: Path) -> tuple[ClassEntry, ...]:
    """Read a class map.

    Args:
        path: A JSON file if its name ends in `.json`, otherwise a table.

    Raises:
        ConfigError: The file is absent or malformed, has a code or a name twice, or merges a code into one that is
            itself merged.
    """
    text = read_text_file(path, "give a table or a JSON file")
    try:
        rows = _json_rows(text) if path.suffix.lower() == ".json" else _table_rows(text)
        entries = tuple(ClassEntry.model_validate(row) for row in rows)
    except ValidationError as error:
        raise ConfigError(path, f"is not a class map ({first_fault(error)})", "columns are code, name, into") from error
    except (csv.Error, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(path, f"is not a class map ({error})", "columns are code, name, into") from error
    twice = sorted(code for code, count in Counter(entry.code for entry in entries).items() if count > 1)
    if twice:
        raise ConfigError(path, f"names code {twice[0]} twice", "give each code one line")
    merged = {entry.code for entry in entries if entry.into not in (None, entry.code)}
    names = Counter(entry.name for entry in entries if entry.name and entry.code not in merged)
    alike = [name for name, count in names.items() if count > 1]
    if alike:
        # Reports list scores by class name.
        remedy = "merge one 'into' the other, or give each its own name"
        raise ConfigError(path, f"gives two codes the name {alike[0]}", remedy)
    shades = Counter(entry.color for entry in entries if entry.color is not None and entry.code not in merged)
    alike = [color for color, count in shades.items() if count > 1]
    if alike:
        # In a color mask, the two codes would be one class.
        raise ConfigError(path, f"gives two codes the color #{bytes(alike[0]).hex()}", "give each its own color")
    chained = [entry for entry in entries if entry.into in merged]
    if chained:
        what = f"merges {chained[0].code} into {chained[0].into}, which is itself merged"
        raise ConfigError(path, what, "give the final code in 'into'")
    return entries


def colors_of(entries: tuple[ClassEntry, ...]) -> dict[Color, int]:
    """Return the code of each color that a class map gives."""
    return {entry.color: entry.code for entry in entries if entry.color is not None}


def _table_rows(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter_of(text))
    rows = [{_ALIASES.get(key, key): value for key, value in row.items()} for row in reader]
    if not rows or "code" not in rows[0]:
        raise ValueError("no column code or GT_code")
    return cast("list[dict[str, Any]]", rows)


def _json_rows(text: str) -> list[dict[str, Any]]:
    content = json.loads(text, object_pairs_hook=_without_twins)
    if isinstance(content, dict) and "labels" in content:
        return _nnunet_rows(cast("dict[str, Any]", content)["labels"])
    if isinstance(content, dict):
        return [{"code": int(code), "into": into} for code, into in cast("dict[str, Any]", content).items()]
    if not isinstance(content, list):
        raise TypeError("neither a list nor an object")
    return cast("list[dict[str, Any]]", content)


def _nnunet_rows(labels: Any) -> list[dict[str, Any]]:
    """Return the entries of nnU-Net's labels: codes by name in version 2, names by code in version 1."""
    if not isinstance(labels, dict):
        raise TypeError("its labels are not an object")
    rows: list[dict[str, Any]] = []
    for key, value in cast("dict[str, Any]", labels).items():
        if isinstance(value, list):
            raise TypeError(f"its label {key} is a region of several codes; give a table with code, name and into")
        name, code = (value, key) if isinstance(value, str) else (key, value)
        rows.append({"code": int(code), "name": name})
    return rows


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a JSON object that has a key twice, because Python would drop the first value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice} occurs twice")
    return found
