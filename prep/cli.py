"""The command `bcss-prep`: parse, call, report. Heavy modules are imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from prep.command.build import build
from prep.command.help_groups import BUILD, BUILD_EXAMPLES
from prep.command.masks import masks
from schemas.command.console import interrupted_as_line, printable, progress_bar, run_command, show_version, shown_on
from schemas.command.plain_help import register

app = typer.Typer(
    help="Build a Zarr store of tiles, segments and prompts from images and masks. "
    "--debug shows tracebacks and timings, --log-json logs JSON.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def sample(
    out_dir: Annotated[Path, typer.Argument(help="Folder in which images/ and masks/ are written.")],
    rois: Annotated[int, typer.Option(min=1, max=999, help="Number of ROIs, or of sequences.")] = 6,
    size: Annotated[
        int | None, typer.Option(min=64, help="Height in pixels. Default: 1536 for ROIs, 480 for frames.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    look: Annotated[
        Literal["plain", "varied", "textured", "glands"],
        typer.Option(
            help="plain: always the same; varied: each ROI has its own colors; "
            "textured: fibers and cells in two stains; glands: glands with pale centers."
        ),
    ] = "plain",
    frames: Annotated[
        int | None,
        typer.Option(min=2, max=9999, help="Write sequences of this many frames, whose objects move, instead of ROIs."),
    ] = None,
) -> None:
    """Write a synthetic data set with file names and masks like those of BCSS, or sequences with --frames."""
    from prep.sample.write import write_sample
    from prep.scene.folders import SIZE_PX, write_scenes

    if frames is None:
        stems = write_sample(out_dir, rois, size or 1536, seed, look)
        typer.echo(f"{len(stems)} ROIs in {printable(out_dir)}")
        return
    if look != "plain":
        raise typer.BadParameter("is for ROIs; leave it out with --frames", param_hint="--look")
    names = write_scenes(out_dir, frames, rois, size or SIZE_PX, seed)
    typer.echo(f"{len(names)} sequences of {frames} frames in {printable(out_dir)}")


register(app, build, BUILD, *BUILD_EXAMPLES)
app.command()(masks)


@app.command()
def inspect(
    store: Annotated[str, typer.Argument(help="Path or URL of a store.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Show the splits, classes, arrays and settings of a store."""
    from prep.inspect import summarize_store
    from prep.summary_tables import print_summary
    from schemas.store.store import open_store

    summary = summarize_store(open_store(store))
    if json:
        typer.echo(summary.model_dump_json(indent=1))
    else:
        print_summary(summary)


@app.command()
def verify(store: Annotated[str, typer.Argument(help="Path or URL of a store.")]) -> None:
    """Hash every file of a store again, derive its segments again from the labels, and check every prompt."""
    from prep.verify import verify_store
    from schemas.errors import StoreError
    from schemas.store.store import open_store

    opened = open_store(store)
    with interrupted_as_line("nothing was changed"), progress_bar("verify", "check") as bar:
        problems = verify_store(opened, shown_on(bar))
    for problem in problems:
        typer.echo(printable(f"{problem.where}: {problem.what}"))
    if problems:
        raise StoreError(store, f"has {len(problems)} problems, listed above", "build it again with --overwrite")
    typer.echo(f"{printable(store)}: intact; {len(opened)} tiles, {opened.manifest.complete.objects} objects")


@app.command()
def view(
    store: Annotated[str, typer.Argument(help="Path or URL of a store.")],
    out: Annotated[Path, typer.Option(help="Folder in which index.html and tiles/ are written.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of tiles, spread evenly over the store. Default: all.")
    ] = None,
    show: Annotated[
        str, typer.Option(help="What to draw over a tile: any of fill,outline,box,points.")
    ] = "fill,outline",
) -> None:
    """Draw tiles with their segments and ignored pixels, and write a page that shows them."""
    from prep.draw_tile import LAYERS, Layer
    from prep.view import write_view
    from schemas.store.store import open_store

    unknown = [name for name in show.split(",") if name not in LAYERS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(LAYERS)}", param_hint="--show")
    with interrupted_as_line("the same command draws all tiles again"), progress_bar("draw", "tile") as bar:
        chosen: list[Layer] = [layer for layer in LAYERS if layer in show.split(",")]
        paths = write_view(open_store(store), out, limit, shown_on(bar), chosen)
    typer.echo(f"{len(paths)} tiles: open {printable(out / 'index.html')}")


def main() -> None:
    """Run `bcss-prep`."""
    run_command(app, "bcss-prep")


if __name__ == "__main__":
    main()
