"""What file names say, and names that must stay within the limits of file systems."""

from __future__ import annotations

import hashlib
import re

MAX_FILE_NAME_BYTES = 255
"""Longest file name, in bytes of UTF-8, on Linux and macOS."""


CLASS_MAP_FILE = "classes.tsv"
"""Name of the class map that is written beside masks."""

INSTANCES_FILE = "instances.csv"
"""Name of the table of classes that is written beside masks of instances."""

_MPP = re.compile(r"MPP-(?P<um>\d+(\.\d+)?)")


def mpp_in_name(name: str) -> float | None:
    """Return the micrometers per pixel in a name, as in `MPP-0.2500`; None if the name has none, or has 0."""
    found = _MPP.search(name)
    return float(found["um"]) or None if found else None


def is_utf8(name: str) -> bool:
    """Return whether a name can be written as UTF-8.

    Python turns bytes of file names that are not UTF-8 into lone surrogates, and JSON may also contain some.
    """
    return not any("\ud800" <= character <= "\udfff" for character in name)


def bounded_name(stem: str, ending: str) -> str:
    """Return `stem + ending`, shortened if a file system would refuse it.

    A shortened stem ends in `~` and eight hexadecimal digits of the whole stem's SHA-256, so that two long stems that
    begin alike get different names.
    """
    room = MAX_FILE_NAME_BYTES - len(ending.encode())
    if len(stem.encode()) <= room:
        return stem + ending
    mark = "~" + hashlib.sha256(stem.encode()).hexdigest()[:8]
    return stem.encode()[: room - len(mark)].decode(errors="ignore") + mark + ending
