"""Name the models of an evaluation: by their run and file, for example `RUN/best`, or as the user says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigError

BASELINE = "baseline:"
"""Prefix of the names of baselines."""

SEEN_MARK = "†"
"""Follows each score of a model that was trained or chosen on patients that are scored."""

ORACLE_MARK = "‡"
"""Follows each score of a baseline that sees more of the truth than a model does under the same prompt."""

ORACLE_NOTE = f"{ORACLE_MARK} sees more of the truth than this prompt gives"

FULL_SIZE = "@1024px"
"""Suffix for a start that is scored at its own training size."""


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint and the name of its model.

    Attributes:
        name: The name, which no other model of the evaluation has.
        path: Path of the checkpoint.
    """

    name: str
    path: Path


def without_dots(path: Path) -> Path:
    """Return the absolute path without `.` and `..`, so that each part names a folder; links are not followed."""
    return Path(os.path.normpath(path.absolute()))


def name_checkpoints(given: Sequence[str]) -> list[NamedCheckpoint]:
    """Name checkpoints.

    Args:
        given: For each checkpoint its path, or `NAME=PATH`. A path of an existing file may have an equals sign.

    Returns:
        The checkpoints in the same order. One in a folder `checkpoints` is named after its run and its file, for
        example `RUN/best`; any other is named after its file. If several would share a name, the names of more folders
        are added.

    Raises:
        ConfigError: Two checkpoints have one name or are one file, or a name is that of a baseline.
    """
    pairs = [_parts(value) for value in given]
    paths = [path for _, path in pairs]
    names = [name or _short(path, paths) for name, path in pairs]
    for number, name in enumerate(names):
        if name.startswith(BASELINE):
            raise ConfigError(
                f"--checkpoint {given[number]}", f"has a name that begins with {BASELINE}", "choose another name"
            )
        if name in names[:number]:
            remedy = "give each checkpoint once, with a name of its own: --checkpoint NAME=PATH"
            raise ConfigError(f"--checkpoint {given[number]}", f"has the name {name} of another checkpoint", remedy)
    return [NamedCheckpoint(name, path) for name, path in zip(names, paths, strict=True)]


def _parts(value: str) -> tuple[str, Path]:
    name, equals, path = value.partition("=")
    return (name, Path(path)) if equals and name and path and not Path(value).exists() else ("", Path(value))


def _short(path: Path, paths: Sequence[Path]) -> str:
    """Return the shortest name of a path that the others do not have."""
    own = _folders(path)
    others = [_folders(other) for other in paths if without_dots(other) != without_dots(path)]
    least = 2 if without_dots(path).parent.name == "checkpoints" else 1
    for count in range(least, len(own)):
        if all(other[-count:] != own[-count:] for other in others):
            return "/".join(own[-count:])
    return "/".join(own[-least:])


def _folders(path: Path) -> tuple[str, ...]:
    """Return the names of a path's folders, without `checkpoints`, and of its file, without the suffix."""
    *folders, file = without_dots(path).parts[1:]
    if folders and folders[-1] == "checkpoints":
        folders.pop()
    return (*folders, Path(file).stem)
