"""Flags that several commands share, and the checks of their values."""

from __future__ import annotations

from typing import Annotated

import typer


def multiple_of_32(value: int | None) -> int | None:
    """Check the side of a network's input."""
    if value is not None and (value % 32 or value < 128):
        raise typer.BadParameter(f"{value} is not a multiple of 32 that is at least 128")
    return value


ImageSize = Annotated[int | None, typer.Option(callback=multiple_of_32, help="Side of the network's input in pixels.")]
