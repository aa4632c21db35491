"""The errors that this project raises on purpose.

A message has three parts: where (the file, tile or flag), what is wrong, and what to do about it. The command line
prints it as one line and exits with status 1. In Python, `BcssError` catches all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class BcssError(Exception):
    """Base of all errors of this project.

    Args:
        where: The file, tile, store or flag at fault.
        what: What is wrong with it.
        remedy: What the reader can do about it.
    """

    # Three positional arguments and nothing else: an exception that crosses a process boundary is rebuilt from them.
    def __init__(self, where: object, what: str, remedy: str) -> None:
        super().__init__(str(where), what, remedy)

    def __str__(self) -> str:
        where, what, remedy = self.args
        # The message of a library may have several lines.
        return re.sub(r"\s*\n\s*", " ", f"{where}: {what}; {remedy}")


def first_fault(error: ValidationError) -> str:
    """Return the place and the text of the first fault that pydantic found, for a message."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


class SourceError(BcssError):
    """A source image, mask or folder cannot be used."""


class SeveralProblemsError(SourceError):
    """Several problems of one source, each on its own line."""

    def __str__(self) -> str:
        where, what, remedy = self.args
        head, *lines = what.split("\n")
        return "\n  ".join([f"{where}: {head}; {remedy}", *lines])


class StoreError(BcssError):
    """A store is absent, unfinished, damaged, or has another schema version."""


class UnreachableError(StoreError):
    """A device or a server failed; the store itself may be intact."""


class ConfigError(BcssError):
    """A setting contradicts another one or the data."""


class CheckpointError(BcssError):
    """A checkpoint is absent, damaged, or belongs to another model."""


class TrainingError(BcssError):
    """Training cannot continue, for example because the loss is no longer finite."""


SHOWN_PROBLEMS = 10
"""Number of problems that one message lists."""


def joined(where: object, problems: Sequence[BcssError]) -> BcssError:
    """Combine all problems of a source into one error, so that the user can fix them all at once.

    Args:
        where: The folder or table.
        problems: At least one problem.

    Returns:
        The problem itself if there is only one.
    """
    if len(problems) == 1:
        return problems[0]
    lines = [" ".join(str(problem).split()) for problem in problems[:SHOWN_PROBLEMS]]
    more = f", of which {SHOWN_PROBLEMS} are shown" if len(problems) > SHOWN_PROBLEMS else ""
    what = "\n".join([f"has {len(problems)} problems{more}", *lines])
    return SeveralProblemsError(where, what, "fix them, then repeat the command")


def unreadable(where: str, error: OSError) -> StoreError:
    """Make the error for a file that the operating system could not read.

    Args:
        where: What was read.
        error: The reason.

    Returns:
        A StoreError for a missing file; an UnreachableError for a failing device or a missing permission.
    """
    kind = StoreError if isinstance(error, FileNotFoundError) else UnreachableError
    return kind(where, f"cannot be read ({error.strerror or error})", "check the disk, and repeat the command")
