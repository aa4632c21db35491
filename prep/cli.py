"""The command `bcss-prep`: parse, call, report. Heavy modules are imported when a command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from schemas.codec_names import CodecName
from schemas.command.console import interrupted_as_line, printable, progress_bar, run_command, show_version
from schemas.limits import MAX_POINTS, MAX_TILE_PX

if TYPE_CHECKING:
    from prep.build import BuildProgress
    from prep.config import BuildConfig
    from prep.plan import Splitter

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Cores that this process may use; a scheduler may give it fewer than the machine has."""

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


def _multiple_of_8(value: int) -> int:
    if value % 8:
        raise typer.BadParameter(f"{value} is not a multiple of 8")
    return value


def _positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"{value} is not a positive number")
    return value


def _fractions(text: str | None) -> str | None:
    try:
        [float(part) for part in (text or "").split(",") if text]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not three numbers as in 0.8,0.1,0.1") from error
    return text


@app.command()
def sample(
    out_dir: Annotated[Path, typer.Argument(help="Folder in which images/ and masks/ are written.")],
    rois: Annotated[int, typer.Option(min=1, max=999, help="Number of ROIs.")] = 6,
    size: Annotated[int, typer.Option(min=64, help="Height of a ROI in pixels.")] = 1536,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
) -> None:
    """Write a synthetic data set with file names and masks like those of BCSS."""
    from prep.synthetic import write_sample

    stems = write_sample(out_dir, rois, size, seed)
    typer.echo(f"{len(stems)} ROIs in {printable(out_dir)}")


@app.command()
def build(
    src_dir: Annotated[Path, typer.Argument(help="Folder that contains images/ and masks/.")],
    out: Annotated[str, typer.Option(help="Store to write: a path, or a URL like s3://bucket/bcss.zarr.")],
    images: Annotated[str, typer.Option(help="Folder of images in SRC_DIR.")] = "images",
    masks: Annotated[str, typer.Option(help="Folder of masks in SRC_DIR.")] = "masks",
    layout: Annotated[
        Literal["tile", "resize"], typer.Option(help="Cut tiles, or resize each ROI to one square.")
    ] = "tile",
    size: Annotated[
        int,
        typer.Option(
            min=8, max=MAX_TILE_PX, callback=_multiple_of_8, help="Side of a tile in pixels, a multiple of 8."
        ),
    ] = 1024,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Step between tiles in pixels; --size unless given.")
    ] = None,
    edge: Annotated[
        Literal["shift", "pad"],
        typer.Option(help="Shift the last row and column of tiles inside, or pad them with ignored pixels."),
    ] = "shift",
    mpp: Annotated[
        float | None,
        typer.Option(
            callback=_positive,
            help="Resample ROIs to this many micrometers a pixel; their own is read from the file names.",
        ),
    ] = None,
    source_mpp: Annotated[
        float | None,
        typer.Option(
            callback=_positive, help="Micrometers a pixel of ROIs whose names do not tell it as MPP-0.2500 does."
        ),
    ] = None,
    min_tissue: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out tiles with a smaller share of pixels that are not ignored.")
    ] = 0.0,
    objects: Annotated[
        Literal["label", "component"],
        typer.Option(help="Make one object of each class in a tile, or of each connected component."),
    ] = "label",
    classes: Annotated[
        str | None,
        typer.Option(
            help="Codes, ranges or names of classes that become objects, or 'all'; those of --class-map or 1,2,3,4,18 "
            "unless given."
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            help="Codes or names of classes that are left out of loss and scores, or 'none'; unless given 0,7,15 for "
            "files named as in BCSS, else none."
        ),
    ] = None,
    class_map: Annotated[
        Path | None, typer.Option(help="TSV or JSON file with code, name, and 'into' to merge codes.")
    ] = None,
    min_area: Annotated[
        int | None,
        typer.Option(
            min=1, help="Minimum area of an object in pixels; 64 for components and 1 for labels unless given."
        ),
    ] = None,
    positive_points: Annotated[int, typer.Option(min=1, max=MAX_POINTS, help="Positive points of each object.")] = 8,
    negative_points: Annotated[int, typer.Option(min=0, max=MAX_POINTS, help="Negative points of each object.")] = 8,
    split_file: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with patient (or frame_id) and split; by default that of BCSS, or 70,15,15 % elsewhere."
        ),
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV file with frame_id and patient, for names without a TCGA barcode.")
    ] = None,
    split_fractions: Annotated[
        str | None, typer.Option(callback=_fractions, help="Shares of patients in train,val,test, drawn with --seed.")
    ] = None,
    codec: Annotated[
        CodecName, typer.Option(help="Compress images to read quickly, or to take little space; both without loss.")
    ] = "fast",
    seed: Annotated[int, typer.Option(min=0, help="Seed of points and of --split-fractions.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes; one for each core unless given.")] = CORES,
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler to run on, or 'local'.", metavar="ADDRESS")
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Working folder; OUT.partial unless given. Dask workers must reach it under the same path."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing store, and discard unfinished work of another build."),
    ] = False,
) -> None:
    """Build a store from images and masks; after an interruption, repeat the command to continue."""
    from prep.build import BuildOptions, build_store
    from prep.config import BuildConfig
    from prep.dataset_rules import dataset_rules
    from prep.inspect import class_counts, ignored_share
    from prep.source.class_map import read_class_map
    from prep.source.split import file_patients
    from prep.summary_tables import print_classes
    from schemas.store.store import open_store

    rules = dataset_rules(src_dir / masks, classes, ignore, read_class_map(class_map) if class_map else ())
    config = BuildConfig(
        images=images,
        masks=masks,
        layout=layout,
        size_px=size,
        stride_px=stride or size,
        edge=edge,
        mpp_um=mpp,
        source_mpp_um=source_mpp,
        min_tissue=min_tissue,
        objects=objects,
        classes=rules.classes,
        ignore=rules.ignore,
        class_map=rules.class_map,
        min_area_px=min_area or 0,
        positive_points=positive_points,
        negative_points=negative_points,
        codec=codec,
        seed=seed,
    )
    splitter = _splitter(config, split_file, split_fractions)
    continues = "what is done is kept, and the same command continues from it"
    with interrupted_as_line(continues), progress_bar("prepare", "ROI") as bar:
        options = BuildOptions(workers, dask, overwrite, work_dir, on_progress=lambda step: _show(bar, step))
        manifest = build_store(src_dir, out, config, options, splitter, file_patients(patients) if patients else None)
    print_classes(class_counts(open_store(out)))
    counts = f"{manifest.complete.tiles} tiles, {manifest.complete.objects} objects"
    share, codes = ignored_share(manifest), ignore or ",".join(map(str, rules.ignore)) or "none"
    typer.echo(f"{printable(out)}: {counts}; {share:.0%} of the pixels are ignored (--ignore {codes})")


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

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        problems = verify_store(opened, show)
    for problem in problems:
        typer.echo(printable(f"{problem.where}: {problem.what}"))
    if problems:
        raise StoreError(store, f"has {len(problems)} problems, listed above", "build it again with --overwrite")
    typer.echo(f"{printable(store)}: whole; {len(opened)} tiles, {opened.manifest.complete.objects} objects")


@app.command()
def view(
    store: Annotated[str, typer.Argument(help="Path or URL of a store.")],
    out: Annotated[Path, typer.Option(help="Folder in which index.html and tiles/ are written.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of tiles, spread evenly over the store; all unless given.")
    ] = None,
) -> None:
    """Draw tiles with their segments, points, boxes and ignored pixels, and write a page that shows them."""
    from prep.view import write_view
    from schemas.store.store import open_store

    with interrupted_as_line("the same command draws all tiles again"), progress_bar("draw", "tile") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        paths = write_view(open_store(store), out, limit, show)
    typer.echo(f"{len(paths)} tiles: open {printable(out / 'index.html')}")


def _splitter(config: BuildConfig, split_file: Path | None, fractions: str | None) -> Splitter:
    from prep.source.split import default_split, file_split, fraction_split
    from schemas.errors import ConfigError

    if split_file and fractions:
        raise ConfigError("--split-file", "and --split-fractions are both given", "choose one")
    if split_file:
        return lambda rois: file_split(rois, split_file)
    if fractions:
        shares = [float(part) for part in fractions.split(",")]
        return lambda rois: fraction_split(rois, shares, config.seed)
    return default_split


def _show(bar: object, step: BuildProgress) -> None:
    from tqdm import tqdm

    assert isinstance(bar, tqdm)
    bar.total = step.total
    elapsed = max(bar.format_dict["elapsed"], 1e-3)
    rates = f"{step.tiles / elapsed:.1f} tiles/s, {step.source_bytes / elapsed / 1e6:.0f} MB/s"
    bar.set_postfix_str(rates, refresh=False)
    bar.update(step.done - bar.n)


def main() -> None:
    """Run `bcss-prep`."""
    run_command(app, "bcss-prep")


if __name__ == "__main__":
    main()
