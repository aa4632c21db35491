"""Every error this project raises on purpose.

A message has three parts: where (the file, tile or flag), what is wrong, and what to do about it. The command line
prints it as one line and exits with 1; from Python all of them are caught with `BcssError`.
"""

from __future__ import annotations

import re


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
        # What a library says of a failure may have several lines.
        return re.sub(r"\s*\n\s*", " ", f"{where}: {what}; {remedy}")


class SourceError(BcssError):
    """A source image, mask or folder cannot be used."""


class StoreError(BcssError):
    """A store is absent, unfinished, damaged or of another schema."""


class UnreachableError(StoreError):
    """A device or a server fails just now: the store itself may be whole."""


class ConfigError(BcssError):
    """A setting contradicts another one or the data."""


class CheckpointError(BcssError):
    """A checkpoint is absent, damaged or of another model."""


class TrainingError(BcssError):
    """Training cannot go on, for example because the loss is no longer finite."""


def unreadable(where: str, error: OSError) -> StoreError:
    """Say that a device fails or a permission is missing, in which case the store itself may be whole, or a file is."""
    kind = StoreError if isinstance(error, FileNotFoundError) else UnreachableError
    return kind(where, f"cannot be read ({error.strerror or error})", "check the disk, and repeat the command")
