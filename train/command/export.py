"""`bcss-train export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.command.console import interrupted_as_line, printable
from train.backbone.catalog import ModelSize
from train.choices import ExportFormat
from train.command.flags import ImageSize


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of bcss-train or of Meta.")],
    target: Annotated[
        ExportFormat,
        typer.Option(
            "--to",
            help="weights: a file for Meta's build_sam2; safetensors: the same in that format; "
            "transformers: a folder for Sam2Model.from_pretrained, with a model card.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write, or folder for transformers.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Result folder of bcss-train evaluate, for the scores in the model card.")
    ] = None,
    model: Annotated[ModelSize | None, typer.Option(help="Network of an official checkpoint.")] = None,
    image_size: ImageSize = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")] = False,
) -> None:
    """Write a checkpoint for other programs: Meta's code, or transformers with a model card."""
    from train.export.export import export_checkpoint

    if evaluation is not None and target != "transformers":
        raise typer.BadParameter("--evaluation is for the model card of --to transformers")
    with interrupted_as_line("nothing was written"):
        path = export_checkpoint(checkpoint, out, target, model, image_size, evaluation, overwrite=overwrite)
    typer.echo(printable(path))
