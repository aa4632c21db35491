"""Compare the files of two evaluations, number by number."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.picture.decode import read_image
from train.evaluation.page import page_parts

SCORES_FILE, OBJECTS, ROIS = "metrics.json", "objects.csv", "rois.csv"
REPORT, OVERLAYS = "report.html", "overlays.png"

_DESCRIBES = ("settings", "made_by")
"""Keys of `metrics.json` that are compared before the scoring, or differ between machines."""

_FORMAT_KEYS = ("paired", "overlays_beside")
"""Keys of `metrics.json` whose values an older form defines in another way."""

_MISSING = "nothing"


@dataclass
class Comparison:
    """What a comparison found.

    Attributes:
        differences: One line for each difference.
        compared: Number of values that were compared.
    """

    differences: list[str]
    compared: int = 0


def compare_evaluations(
    recorded: Path, repeated: Path, tolerance: float = 0.0, *, same_format: bool = True
) -> Comparison:
    """Compare the files of an evaluation with those of its repetition.

    Args:
        recorded: Folder of the evaluation.
        repeated: Folder of the repetition.
        tolerance: Largest difference of two numbers that count as equal. The report rounds its numbers, so the page and
            its pictures are compared only with a tolerance of 0.
        same_format: Whether the files of both have the same `FORMAT_VERSION`. If not, only the scores that both have
            are compared.

    Raises:
        ConfigError: A file of the evaluation cannot be read.
    """
    found = Comparison([])
    for place, ours, theirs in _values(recorded, repeated, same_format=same_format, with_report=tolerance == 0):
        found.compared += 1
        if not _equal(ours, theirs, tolerance):
            found.differences.append(f"{place}: {_shown(ours)} in the report, {_shown(theirs)} when scored again")
    return found


def read_numbers(folder: Path) -> dict[str, Any]:
    """Read the `metrics.json` of an evaluation.

    Raises:
        ConfigError: The file is absent or damaged.
    """
    path = folder / SCORES_FILE
    try:
        numbers = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(path, f"is not JSON ({error})", "run evaluate again with --overwrite") from error
    if not isinstance(numbers, dict):
        raise ConfigError(path, "is not the result of an evaluation", "give the --out of bcss-train evaluate")
    return numbers


def _values(recorded: Path, repeated: Path, *, same_format: bool, with_report: bool) -> Iterator[tuple[str, Any, Any]]:
    """Yield place, recorded value and repeated value of everything that either evaluation has."""
    ours, theirs = (
        {key: part for key, part in read_numbers(folder).items() if key not in _DESCRIBES}
        for folder in (recorded, repeated)
    )
    if not same_format:
        ours, theirs = _shared(ours, theirs), _shared(theirs, ours)
    yield from _of_trees(SCORES_FILE, ours, theirs)
    yield from _of_tables(OBJECTS, recorded, repeated)
    if (repeated / ROIS).exists():
        yield from _of_tables(ROIS, recorded, repeated)
    if with_report and same_format:
        yield from _of_pages(recorded, repeated)
        yield OVERLAYS, _pixels(recorded / OVERLAYS), _pixels(repeated / OVERLAYS)


def _shared(ours: Any, theirs: Any) -> Any:
    """Return the part of the first JSON value whose keys the second has, too."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return ours
    return {key: _shared(ours[key], theirs[key]) for key in ours if key in theirs and key not in _FORMAT_KEYS}


def _of_trees(place: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the leaves of two JSON values; a part that only one has is one leaf."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys((*ours, *theirs)):
            yield from _of_trees(f"{place} / {key}", ours.get(key, _MISSING), theirs.get(key, _MISSING))
    elif isinstance(ours, list) and isinstance(theirs, list):
        for number, pair in enumerate(zip_longest(ours, theirs, fillvalue=_MISSING), 1):
            yield from _of_trees(f"{place} / {number}", *pair)
    else:
        yield place, ours, theirs


def _of_tables(name: str, recorded: Path, repeated: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield the cells of two CSV files; the first line has the names of the columns."""
    ours, theirs = (list(csv.reader(_text(folder / name).splitlines())) for folder in (recorded, repeated))
    heads = theirs[0]
    for line, (own, other) in enumerate(zip_longest(ours, theirs, fillvalue=()), 1):
        for column, (cell, expected) in enumerate(zip_longest(own, other, fillvalue=_MISSING)):
            head = heads[column] if column < len(heads) else f"column {column + 1}"
            yield f"{name}, line {line}, {head}", cell, expected


def _of_pages(recorded: Path, repeated: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield all texts, attributes and pictures of two pages."""
    ours, theirs = (page_parts(_text(folder / REPORT)) for folder in (recorded, repeated))
    for own, other in zip_longest(ours, theirs, fillvalue=("", _MISSING)):
        place, expected = other
        if own[0] == place or _MISSING in (own[1], expected):
            yield f"{REPORT}, {place or own[0]}", own[1], expected
        else:
            yield f"{REPORT}, {place}", f"{own[0]}: {own[1]}", expected


def _pixels(path: Path) -> str:
    """Return the size and a SHA-256 of the pixels of a picture."""
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    return f"{width} x {height} pixels with SHA-256 {hashlib.sha256(pixels.tobytes()).hexdigest()[:12]}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        remedy = "give the --out of bcss-train evaluate without --propagate"
        raise ConfigError(path, "does not exist", remedy) from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not UTF-8 text ({error})", "run evaluate again with --overwrite") from error


def _equal(ours: Any, theirs: Any, tolerance: float) -> bool:
    if ours == theirs and type(ours) is type(theirs):
        return True
    numbers = [_number(value) for value in (ours, theirs)]
    if all(number is not None and math.isnan(number) for number in numbers):
        return True
    if None in numbers or not tolerance:
        return False
    return math.isclose(numbers[0] or 0.0, numbers[1] or 0.0, rel_tol=0, abs_tol=tolerance)


def _number(value: Any) -> float | None:
    """Return a number, or the number that a cell of a table holds; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
