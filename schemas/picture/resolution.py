"""The resolution of a picture, in micrometers per pixel."""

from __future__ import annotations

from pathlib import Path

from schemas.file_names import mpp_in_name
from schemas.picture.picture_file import open_picture

_TIFF_SUFFIXES = (".tif", ".tiff", ".svs")

MAX_MPP_UM = 10.0
"""Largest resolution that callers should believe. Files from other programs state that of a printer."""


def picture_mpp(path: Path) -> float | None:
    """Return the resolution that the name of a picture states, as in `MPP-0.2500`, or else the tags of a TIFF.

    Raises:
        SourceError: The file is a TIFF that cannot be read.
    """
    named = mpp_in_name(path.stem)
    if named is not None or path.suffix.lower() not in _TIFF_SUFFIXES:
        return named
    with open_picture(path) as picture:
        return picture.tiff.mpp_um if picture.tiff is not None else None
