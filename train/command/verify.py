"""`bcss-train verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.command.console import interrupted_as_line, printable, progress_bar, shown_on
from train.choices import DeviceChoice

SHOWN = 20
"""Largest number of differences that are printed."""


def verify(
    report_dir: Annotated[Path, typer.Argument(help="The --out of bcss-train evaluate. Nothing in it is changed.")],
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of two equal numbers; another device needs about 0.01.")
    ] = 0.0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read tiles ahead.")] = 1,
    device: Annotated[
        DeviceChoice | None, typer.Option(help="Device to score on.", show_default="that of the evaluation")
    ] = None,
) -> None:
    """Score everything in a report again, and compare every number; run it in the folder where evaluate ran."""
    from schemas.errors import ConfigError
    from train.evaluation.verify import verify_report

    with interrupted_as_line("nothing was changed"), progress_bar("verify", "tile") as bar:
        found = verify_report(report_dir, device=device, tolerance=tolerance, workers=workers, on_tile=shown_on(bar))
    for line in (*found.notes, *found.differences[:SHOWN]):
        typer.echo(printable(line))
    if not found.differences:
        typer.echo(printable(f"{report_dir}: {found.compared} values are the same when scored again"))
        return
    count = len(found.differences)
    listed = "listed above" if count <= SHOWN else f"of which {SHOWN} are listed above"
    what = f"has {count} {'difference' if count == 1 else 'differences'}, {listed}"
    raise ConfigError(report_dir, what, "find the files that made it, or evaluate again with --overwrite")
