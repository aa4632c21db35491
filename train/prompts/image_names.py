"""Read the names that a file of prompts gives to images, which may be paths of another computer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from schemas.errors import SourceError


def file_names(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the file name of each image by the name that a file of prompts gives.

    Args:
        path: The file of prompts, for messages.
        names: Names or paths of images.

    Raises:
        SourceError: Two images in different folders have the same file name, so their prompts would be mixed.
    """
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        whole = name.replace("\\", "/")
        last = found[name] = whole.rsplit("/", 1)[-1]
        if first.setdefault(last, whole) != whole:
            what = f"names {first[last]} and {whole}, two images with the same file name"
            raise SourceError(path, what, "give one file of prompts for each folder of images")
    return found
