"""Compare the names in a side file, such as a table of patients, with those of the data set."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import PurePath
from typing import TypeVar

from schemas.errors import ConfigError

logger = logging.getLogger(__name__)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svs", ".ndpi", ".csv", ".geojson", ".xml")
_SHOWN = 3

Value = TypeVar("Value")


def stem_of(name: str, names: Collection[str], suffixes: tuple[str, ...] = ()) -> str:
    """Return a name of a side file as the data set has it: without the extension of a file, and without a suffix.

    Args:
        name: The name; it stays as it is if the data set has it.
        names: The names of the data set.
        suffixes: What the stems of files have after the names of the data set, such as `_0000`.
    """
    path = PurePath(name)
    stem = path.stem if name not in names and path.suffix.lower() in _SUFFIXES else name
    shorter = (short for suffix in suffixes if (short := stem.removesuffix(suffix)) in names)
    return stem if stem in names else next(shorter, stem)


def with_stems(values: Mapping[str, Value], names: Collection[str], suffixes: tuple[str, ...] = ()) -> dict[str, Value]:
    """Return the values by name, with file extensions removed from the names.

    Args:
        values: The values by the name that the side file gives.
        names: The names of the data set; a name that is in this list keeps its ending.
        suffixes: What the stems of files have after the names of the data set, such as `_0000`.

    Raises:
        ConfigError: Two names are the same without their extensions, and their values differ.
    """
    known = set(names)
    found: dict[str, Value] = {}
    given: dict[str, str] = {}
    for name, value in values.items():
        stem = stem_of(name, known, suffixes)
        if found.setdefault(stem, value) != value:
            what = f"has other values than {given[stem]}: {value} and {found[stem]}"
            raise ConfigError(f"the line for {name}", what, "keep one of the two lines")
        given[stem] = name
    return found


def check_joined(where: object, given: Collection[str], wanted: Collection[str], others: Collection[str] = ()) -> None:
    """Check that a side file gives every name of the data set, and warn of names that are not in the data set.

    Args:
        where: The side file, for messages.
        given: The names in the side file, without extensions.
        wanted: The names of the data set, each of which the side file must give.
        others: Further names of the data set that the side file may give.

    Raises:
        ConfigError: The side file lacks a name of the data set; the message gives the most similar name in the file.
    """
    missing = [name for name in wanted if name not in set(given)]
    strangers = sorted(set(given) - {*wanted, *others})
    if missing:
        # A line that names no ROI is probably the misspelled name.
        near = get_close_matches(missing[0], strangers, n=1) or get_close_matches(missing[0], sorted(given), n=1)
        what = f"does not name {missing[0]}"
        if len(missing) == len(wanted) > 1:
            what = f"names none of the {len(wanted)} ROIs, such as {missing[0]}"
        elif len(missing) > 1:
            what += f" and {len(missing) - 1} more of {len(wanted)} ROIs"
        hint = f"; the nearest name in it is {near[0]}" if near else ""
        remedy = "name each ROI as its files are named, with or without extension, and each sequence as its folder"
        raise ConfigError(where, f"{what}{hint}", remedy)
    if strangers:
        shown = ", ".join(strangers[:_SHOWN])
        logger.warning("%s: lines that name no ROI of this data set: %d, such as %s", where, len(strangers), shown)
