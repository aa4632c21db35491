"""File names that are built from other names and must stay within the limits of file systems."""

from __future__ import annotations

import hashlib

MAX_NAME_BYTES = 255
"""Longest file name, in bytes of UTF-8, on Linux and macOS."""


CLASS_MAP_FILE = "classes.tsv"
"""Name of the class map that is written beside masks."""

INSTANCES_FILE = "instances.csv"
"""Name of the table of classes that is written beside masks of instances."""


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
    room = MAX_NAME_BYTES - len(ending.encode())
    if len(stem.encode()) <= room:
        return stem + ending
    mark = "~" + hashlib.sha256(stem.encode()).hexdigest()[:8]
    return stem.encode()[: room - len(mark)].decode(errors="ignore") + mark + ending
