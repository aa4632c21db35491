"""Flags that several commands share, the checks of flags, and the command line."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable
from typing import Annotated

import typer


def multiple_of_32(value: int | None) -> int | None:
    """Check the side of a network's input."""
    if value is not None and (value % 32 or value < 128):
        raise typer.BadParameter(f"{value} is not a multiple of 32 that is at least 128")
    return value


def finite(value: float | None) -> float | None:
    """Check a number that must not be infinite or NaN."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


ImageSize = Annotated[int | None, typer.Option(callback=multiple_of_32, help="Side of the network's input in pixels.")]


def command_line() -> str:
    """Return the command as a shell takes it, for a report."""
    return shlex.join(["bcss-train", *sys.argv[1:]])


def refuse_flags(context: typer.Context, with_flag: str, has_effect: Callable[[str], bool]) -> None:
    """Refuse flags on the command line that another flag makes useless.

    Args:
        context: The command that runs.
        with_flag: The other flag.
        has_effect: Says whether a parameter, by its name in Python, has an effect beside that flag.

    Raises:
        typer.BadParameter: A flag without an effect was given.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE" and not has_effect(str(parameter.name)):
            raise typer.BadParameter(f"{parameter.opts[0]} has no effect with {with_flag}; leave it out")
