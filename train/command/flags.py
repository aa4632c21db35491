"""Flags that several commands share, the checks of their values, their command line, and how a bar shows progress."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tqdm import tqdm


def multiple_of_32(value: int | None) -> int | None:
    """Check the side of a network's input."""
    if value is not None and (value % 32 or value < 128):
        raise typer.BadParameter(f"{value} is not a multiple of 32 that is at least 128")
    return value


ImageSize = Annotated[int | None, typer.Option(callback=multiple_of_32, help="Side of the network's input in pixels.")]


def command_line() -> str:
    """Return the command as a shell takes it, for a report."""
    return shlex.join(["bcss-train", *sys.argv[1:]])


def shown_on(bar: tqdm[Any]) -> Callable[[int, int], None]:
    """Return a function that shows the number of finished parts and the number of all parts on a bar."""

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show
