"""The command `bcss-prep`: parse, call, report. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from schemas.console import run_command

if TYPE_CHECKING:
    from prep.build import BuildProgress

app = typer.Typer(
    help="Turn palettized masks into segments and point prompts in a Zarr store. --debug shows tracebacks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _multiple_of_8(value: int) -> int:
    if value % 8:
        raise typer.BadParameter(f"{value} is not a multiple of 8")
    return value


@app.command()
def sample(
    out_dir: Annotated[Path, typer.Argument(help="Folder to write images/ and masks/ into.")],
    rois: Annotated[int, typer.Option(min=1, max=999, help="How many ROIs.")] = 6,
    size: Annotated[int, typer.Option(min=64, help="Height of a ROI, pixels.")] = 1536,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")] = 0,
) -> None:
    """Write a synthetic data set named and shaped like BCSS."""
    from prep.sample import write_sample

    stems = write_sample(out_dir, rois, size, seed)
    typer.echo(f"{len(stems)} ROIs in {out_dir}")


@app.command()
def build(
    src_dir: Annotated[Path, typer.Argument(help="Folder that holds images/ and masks/.")],
    out: Annotated[Path, typer.Option(help="The store to write, for example bcss.zarr.")],
    images: Annotated[str, typer.Option(help="Folder of images in SRC_DIR.")] = "images",
    masks: Annotated[str, typer.Option(help="Folder of masks in SRC_DIR.")] = "masks",
    layout: Annotated[
        Literal["tile", "resize"], typer.Option(help="Cut at native resolution, or one square a ROI.")
    ] = "tile",
    size: Annotated[int, typer.Option(min=8, callback=_multiple_of_8, help="Side of a tile, a multiple of 8.")] = 1024,
    stride: Annotated[int | None, typer.Option(min=1, help="Step between tiles; the size unless given.")] = None,
    objects: Annotated[
        Literal["label", "component"], typer.Option(help="One object a class, or a connected component.")
    ] = "label",
    classes: Annotated[str, typer.Option(help="Codes or names that become objects, or 'all'.")] = "1,2,3,4,18",
    ignore: Annotated[str, typer.Option(help="Codes or names left out of loss and scores.")] = "0,7,15",
    min_area: Annotated[
        int | None, typer.Option(min=1, help="Smallest object, pixels; 64 for components, 1 for labels.")
    ] = None,
    positive_points: Annotated[int, typer.Option(min=1, help="Positive points an object.")] = 8,
    negative_points: Annotated[int, typer.Option(min=0, help="Negative points an object.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of points.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; one a core unless given.")] = os.cpu_count() or 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing store.")] = False,
) -> None:
    """Build a store from images and masks."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from prep.build import build_store
    from prep.config import ALL_CLASSES, BuildConfig, parse_codes

    config = BuildConfig(
        images=images,
        masks=masks,
        layout=layout,
        size_px=size,
        stride_px=stride or size,
        objects=objects,
        classes=ALL_CLASSES if classes.strip().lower() == ALL_CLASSES else parse_codes(classes),
        ignore=parse_codes(ignore),
        min_area_px=min_area or 0,
        positive_points=positive_points,
        negative_points=negative_points,
        seed=seed,
    )
    with logging_redirect_tqdm(), tqdm(unit="ROI", desc="prepare") as bar:
        manifest = build_store(
            src_dir, out, config, workers=workers, overwrite=overwrite, on_progress=lambda step: _show(bar, step)
        )
    typer.echo(f"{out}: {manifest.complete.tiles} tiles, {manifest.complete.objects} objects")


def _show(bar: object, step: BuildProgress) -> None:
    from tqdm import tqdm

    assert isinstance(bar, tqdm)
    bar.total = step.total
    bar.update(step.done - bar.n)
    elapsed = max(bar.format_dict["elapsed"], 1e-3)
    bar.set_postfix_str(f"{step.tiles / elapsed:.1f} tiles/s, {step.source_bytes / elapsed / 1e6:.0f} MB/s")


def main() -> None:
    """Entry point of `bcss-prep`."""
    run_command(app, "bcss-prep")


if __name__ == "__main__":
    main()
