"""`bcss-prep masks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.command.console import interrupted_as_line, printable, progress_bar, shown_on


def masks(
    annotations: Annotated[
        Path, typer.Argument(help="COCO file, or a folder of GeoJSON (QuPath), Labelme or YOLO files.")
    ],
    images: Annotated[Path, typer.Option(help="Folder of the images that were annotated.")],
    out: Annotated[Path, typer.Option(help="Folder to write: a PNG for each image, and classes.tsv.")],
    class_map: Annotated[
        Path | None, typer.Option(help="TSV or JSON file of code and name; else the file's codes, or 1, 2, ...")
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Give each outline its own value, and write instances.csv.")
    ] = False,
) -> None:
    """Draw outlines as masks; later outlines cover earlier ones."""
    from prep.annotation.masks import write_masks
    from prep.source.class_map import read_class_map

    entries = read_class_map(class_map) if class_map else ()
    with interrupted_as_line("nothing was written"), progress_bar("draw", "image") as bar:
        drawn = write_masks(annotations, images, out, entries, instances=instances, on_image=shown_on(bar))
    for name, count in drawn.areas.most_common():
        typer.echo(f"{printable(name)}: {count} outlines")
    for (lower, upper), count in drawn.covered_px.most_common():
        typer.echo(f"{printable(upper)} covers {count} px of {printable(lower)}: later outlines lie above earlier ones")
    if drawn.hidden:
        typer.echo(f"{drawn.hidden} outlines left no pixel: they are covered, tiny, or outside their image")
    flags = "--objects instance --instance-classes" if instances else "--class-map"
    table = out / ("instances.csv" if instances else "classes.tsv")
    more = f" --class-map {printable(out / 'classes.tsv')}" if instances else ""
    typer.echo(f"{drawn.images} masks in {printable(out)}; next: bcss-prep build ... {flags} {printable(table)}{more}")
