"""Read a mask of instances: each value except 0 is one object, and another mask or a table gives its class.

Arrays are H, W.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from prep.source.side_file import stem_of
from schemas.errors import ConfigError, SourceError
from schemas.limits import MAX_CODE
from schemas.picture.decode import LabelArray, read_mask
from schemas.text_file import read_table

ONE_CLASS = 1
"""The class of all instances if nothing gives their class."""

_MAX_DIGITS = 10
"""Number of digits of the largest id, which has 32 bits."""

_REMEDY = "give a CSV with the columns id,class and optionally frame_id or sequence"


@dataclass(frozen=True)
class Instances:
    """The instances of one ROI.

    Attributes:
        ids: uint8 or uint16 (H, W), the number of the instance of each pixel; 0 for none.
        class_of: The class code of each number, also of instances that are left out of `ids`.
        source_ids: The value that each number has in the file.
        ignored: The numbers whose pixels count neither as object nor as background.
    """

    ids: LabelArray
    class_of: dict[int, int]
    source_ids: dict[int, int]
    ignored: frozenset[int] = frozenset()


def read_instances(path: Path) -> tuple[LabelArray, dict[int, int]]:
    """Read the values of a mask of instances, 0 to 2^32 - 1.

    Args:
        path: The mask, palettized or gray.

    Returns:
        The instance number of each pixel, uint8 or uint16 (H, W), and the value that each number has in the file.
        If all values fit into 16 bits, they are the numbers; otherwise they are numbered from 1 in ascending order.

    Raises:
        SourceError: The file cannot be used, or has more than 65,535 instances.
    """
    values = read_mask(path, wide=True)
    if values.dtype != np.uint32:
        labels = cast("LabelArray", values)
        found = np.flatnonzero(np.bincount(labels.ravel())).tolist()
        return labels, {number: number for number in found if number}
    found, numbered = np.unique(values, return_inverse=True)
    if found[0]:
        found, numbered = np.concatenate([[0], found]), numbered + 1
    if len(found) - 1 > MAX_CODE:
        what = f"has {len(found) - 1} instances, but a ROI can have at most {MAX_CODE}"
        raise SourceError(path, what, "cut the image into several ROIs")
    labels = numbered.reshape(values.shape).astype(np.uint16)
    return labels, {number: int(value) for number, value in enumerate(found.tolist()) if number}


def read_tracks(path: Path, ignore: Collection[int]) -> tuple[LabelArray, dict[int, int]]:
    """Read the mask of one frame of a sequence, whose values are the same objects in all frames.

    Args:
        path: The mask, palettized or gray.
        ignore: Values that are not objects.

    Returns:
        The value of each pixel, uint8 or uint16 (H, W), and the values of the objects, each under its own value, in
        the form of `read_instances`.

    Raises:
        SourceError: The file cannot be used, or has a value beyond 16 bits.
    """
    # Wider values would be numbered in each frame on its own, and a number would not be one object in all frames.
    labels = read_mask(path)
    found = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    return labels, {value: value for value in found if value and value not in ignore}


def class_of_instances(
    path: Path, ids: LabelArray, classes: NDArray[np.uint8 | np.uint16], known: Collection[int]
) -> dict[int, int]:
    """Find the class of each instance in a second mask.

    Args:
        path: The second mask, for messages.
        ids: The instances, (H, W).
        classes: The class code of each pixel, (H, W).
        known: The numbers of the instances; other values have no class.

    Returns:
        The class code of each instance.

    Raises:
        SourceError: An instance has pixels of two classes.
    """
    inside = np.isin(np.arange(int(ids.max(initial=0)) + 1), list(known))[ids]
    pairs = np.unique(ids[inside].astype(np.int64) << 16 | classes[inside])
    owners, codes = pairs >> 16, pairs & MAX_CODE
    class_of = dict(zip(owners.tolist(), codes.tolist(), strict=True))
    if len(class_of) < len(pairs):
        twice = int(owners[1:][owners[1:] == owners[:-1]][0])
        named = " and ".join(map(str, codes[owners == twice].tolist()))
        raise SourceError(path, f"gives the instance {twice} the classes {named}", "give each instance one class")
    return class_of


def read_instance_classes(
    path: Path, names: Collection[str] = (), suffixes: tuple[str, ...] = ()
) -> dict[tuple[str, int], str]:
    """Read the class of each instance from a CSV file.

    Args:
        path: The file, with the columns `id` and `class`, and `frame_id` (or `sequence`) if ids repeat from ROI to ROI.
        names: The names of the ROIs or sequences of the data set.
        suffixes: What the stems of files have after these names, such as `_0000`.

    Returns:
        The class, as a code or a name, by the name of the ROI or sequence and the id; without a column for the name,
        the name is empty.

    Raises:
        ConfigError: The file cannot be read, lacks a column, or gives an instance two classes.
    """
    rows = read_table(path, _REMEDY)
    if not rows or not {"id", "class"} <= rows[0][1].keys():
        raise ConfigError(path, "lacks a column", _REMEDY)
    classes: dict[tuple[str, int], str] = {}
    for number, row in rows:
        text, name = row["id"], row["class"]
        roi = stem_of(row.get("frame_id") or row.get("sequence") or "", names, suffixes)
        if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS) or not name:
            raise ConfigError(f"{path} line {number}", f"has id {text!r} and class {name!r}", _REMEDY)
        if classes.setdefault((roi, int(text)), name) != name:
            raise ConfigError(f"{path} line {number}", f"gives the instance {text} a second class", "keep one line")
    return classes


def listed_classes(
    where: object, frame_id: str, source_ids: Mapping[int, int], classes: Mapping[tuple[str, int], int]
) -> dict[int, int]:
    """Find the class of each instance of a ROI in a table.

    Args:
        where: The mask, for messages.
        frame_id: Name of the ROI or sequence.
        source_ids: The value that each instance has in the file.
        classes: The class code by the ROI's name, or an empty name, and the value.

    Raises:
        SourceError: The table lacks an instance.
    """
    found: dict[int, int] = {}
    for number, value in source_ids.items():
        code = classes.get((frame_id, value), classes.get(("", value)))
        if code is None:
            raise SourceError(
                where, f"has the instance {value}, whose class is unknown", "add it to the table of classes"
            )
        found[number] = code
    return found
