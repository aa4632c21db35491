"""The command `bcss-prep`: parse, call, report. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from schemas.codec_names import CodecName
from schemas.command.console import as_markup, printable, progress_bar, run_command, show_version
from schemas.limits import MAX_POINTS, MAX_TILE_PX

if TYPE_CHECKING:
    from prep.build import BuildProgress
    from prep.config import BuildConfig
    from prep.inspect import ClassCount, StoreSummary
    from prep.plan import Splitter

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Those that this process may use: a scheduler may give it fewer than there are."""

app = typer.Typer(
    help="Turn palettized masks into prompts in a Zarr store. --debug: tracebacks, timings; --log-json: JSON.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and leave.")
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
        raise typer.BadParameter(f"{text!r} is not train,val,test as in 0.8,0.1,0.1") from error
    return text


@app.command()
def sample(
    out_dir: Annotated[Path, typer.Argument(help="Folder to write images/ and masks/ into.")],
    rois: Annotated[int, typer.Option(min=1, max=999, help="How many ROIs.")] = 6,
    size: Annotated[int, typer.Option(min=64, help="Height of a ROI, pixels.")] = 1536,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")] = 0,
) -> None:
    """Write a synthetic data set named and shaped like BCSS."""
    from prep.synthetic import write_sample

    stems = write_sample(out_dir, rois, size, seed)
    typer.echo(f"{len(stems)} ROIs in {printable(out_dir)}")


@app.command()
def build(
    src_dir: Annotated[Path, typer.Argument(help="Folder that holds images/ and masks/.")],
    out: Annotated[str, typer.Option(help="The store to write: a path, or a URL like s3://bucket/bcss.zarr.")],
    images: Annotated[str, typer.Option(help="Folder of images in SRC_DIR.")] = "images",
    masks: Annotated[str, typer.Option(help="Folder of masks in SRC_DIR.")] = "masks",
    layout: Annotated[Literal["tile", "resize"], typer.Option(help="Cut tiles, or one square a ROI.")] = "tile",
    size: Annotated[
        int, typer.Option(min=8, max=MAX_TILE_PX, callback=_multiple_of_8, help="Side of a tile, a multiple of 8.")
    ] = 1024,
    stride: Annotated[int | None, typer.Option(min=1, help="Step between tiles; the size unless given.")] = None,
    edge: Annotated[
        Literal["shift", "pad"],
        typer.Option(help="Last row and column: shifted inside, or padded with ignored pixels."),
    ] = "shift",
    mpp: Annotated[
        float | None, typer.Option(callback=_positive, help="Resample to so many um a pixel, read from the names.")
    ] = None,
    min_tissue: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out tiles with a smaller share of pixels that count.")
    ] = 0.0,
    objects: Annotated[
        Literal["label", "component"], typer.Option(help="One object a class and tile, or a connected component.")
    ] = "label",
    classes: Annotated[str, typer.Option(help="Codes or names that become objects, or 'all'.")] = "1,2,3,4,18",
    ignore: Annotated[str, typer.Option(help="Codes or names left out of loss and scores.")] = "0,7,15",
    class_map: Annotated[Path | None, typer.Option(help="TSV or JSON: code, name, and 'into' to merge codes.")] = None,
    min_area: Annotated[
        int | None, typer.Option(min=1, help="Smallest object, pixels; 64 for components, 1 for labels.")
    ] = None,
    positive_points: Annotated[int, typer.Option(min=1, max=MAX_POINTS, help="Positive points an object.")] = 8,
    negative_points: Annotated[int, typer.Option(min=0, max=MAX_POINTS, help="Negative points an object.")] = 8,
    split_file: Annotated[
        Path | None, typer.Option(help="CSV with patient (or frame_id) and split; the bcss preset unless given.")
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="CSV with frame_id and patient, where names have no TCGA barcode.")
    ] = None,
    split_fractions: Annotated[
        str | None, typer.Option(callback=_fractions, help="Shares of patients for train,val,test, drawn by the seed.")
    ] = None,
    codec: Annotated[CodecName, typer.Option(help="Lossless images: quick to read, or small.")] = "fast",
    seed: Annotated[int, typer.Option(min=0, help="Seed of points and of split fractions.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; one a core unless given.")] = CORES,
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler to run on, or 'local'.", metavar="ADDRESS")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Working folder; OUT.partial unless given. Shared with Dask workers.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing store or another build's work.")
    ] = False,
) -> None:
    """Build a store from images and masks; after an interruption the same command goes on."""
    from prep.build import BuildOptions, build_store
    from prep.config import ALL_CLASSES, BuildConfig, parse_codes
    from prep.inspect import class_counts, ignored_share
    from prep.source.class_map import read_class_map
    from prep.source.split import file_patients
    from schemas.store.store import open_store

    entries = read_class_map(class_map) if class_map else ()
    config = BuildConfig(
        images=images,
        masks=masks,
        layout=layout,
        size_px=size,
        stride_px=stride or size,
        edge=edge,
        mpp_um=mpp,
        min_tissue=min_tissue,
        objects=objects,
        classes=ALL_CLASSES if classes.strip().lower() == ALL_CLASSES else parse_codes(classes, entries),
        ignore=parse_codes(ignore, entries),
        class_map=entries,
        min_area_px=min_area or 0,
        positive_points=positive_points,
        negative_points=negative_points,
        codec=codec,
        seed=seed,
    )
    splitter = _splitter(config, split_file, split_fractions)
    with progress_bar("prepare", "ROI") as bar:
        options = BuildOptions(workers, dask, overwrite, work_dir, on_progress=lambda step: _show(bar, step))
        manifest = build_store(src_dir, out, config, options, splitter, file_patients(patients) if patients else None)
    _print_classes(class_counts(open_store(out)))
    counts = f"{manifest.complete.tiles} tiles, {manifest.complete.objects} objects"
    typer.echo(
        f"{printable(out)}: {counts}; {ignored_share(manifest):.0%} of the pixels are ignored (--ignore {ignore})"
    )


@app.command()
def inspect(
    store: Annotated[str, typer.Argument(help="A store.")],
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show what a store holds."""
    from prep.inspect import summarize_store
    from schemas.store.store import open_store

    summary = summarize_store(open_store(store))
    if json:
        typer.echo(summary.model_dump_json(indent=1))
    else:
        _print_summary(summary)


@app.command()
def verify(store: Annotated[str, typer.Argument(help="A store.")]) -> None:
    """Hash every file of a store again, derive segments from the labels again, and check every prompt."""
    from prep.verify import verify_store
    from schemas.errors import StoreError
    from schemas.store.store import open_store

    opened = open_store(store)
    with progress_bar("verify", "check") as bar:

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
    store: Annotated[str, typer.Argument(help="A store.")],
    out: Annotated[Path, typer.Option(help="Folder for index.html and tiles/.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tiles, evenly over the store.")] = None,
) -> None:
    """Draw tiles with segments, points, boxes and ignored pixels, and a page that shows them."""
    from prep.view import write_view
    from schemas.store.store import open_store

    with progress_bar("draw", "tile") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        paths = write_view(open_store(store), out, limit, show)
    typer.echo(f"{len(paths)} tiles: open {printable(out / 'index.html')}")


def _splitter(config: BuildConfig, split_file: Path | None, fractions: str | None) -> Splitter:
    from prep.source.split import bcss_split, file_split, fraction_split
    from schemas.errors import ConfigError

    if split_file and fractions:
        raise ConfigError("--split-file", "and --split-fractions are both given", "choose one")
    if split_file:
        return lambda rois: file_split(rois, split_file)
    if fractions:
        shares = [float(part) for part in fractions.split(",")]
        return lambda rois: fraction_split(rois, shares, config.seed)
    return bcss_split


def _show(bar: object, step: BuildProgress) -> None:
    from tqdm import tqdm

    assert isinstance(bar, tqdm)
    bar.total = step.total
    elapsed = max(bar.format_dict["elapsed"], 1e-3)
    rates = f"{step.tiles / elapsed:.1f} tiles/s, {step.source_bytes / elapsed / 1e6:.0f} MB/s"
    bar.set_postfix_str(rates, refresh=False)
    bar.update(step.done - bar.n)


def _print_classes(counts: tuple[ClassCount, ...] | list[ClassCount]) -> None:
    from rich.console import Console
    from rich.table import Table

    from schemas.manifest import SPLITS

    table = Table("class", "code", *SPLITS, "Mpx", title="objects by class and split")
    for name, code in dict.fromkeys((count.class_name, count.class_id) for count in counts):
        of_class = {count.split: count for count in counts if count.class_id == code}
        objects = (str(of_class[split].objects) if split in of_class else "-" for split in SPLITS)
        pixels = sum(count.pixels for count in of_class.values())
        table.add_row(as_markup(name), str(code), *objects, f"{pixels / 1e6:.1f}")
    Console(emoji=False).print(table)


def _print_summary(summary: StoreSummary) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(emoji=False)
    console.print(
        f"[bold]{as_markup(summary.path)}[/]: {summary.tiles} tiles of {summary.tile_size_px} px, "
        f"{summary.objects} {summary.object_kind} objects, {summary.stored_bytes / 1e6:.1f} MB, "
        f"written by bcss-sam2 {as_markup(summary.tool_version)}"
    )
    console.print(f"{summary.ignored_share:.0%} of the pixels count neither as object nor as background")
    splits = Table("split", "tiles", "ROIs", "patients")
    for split in summary.splits:
        splits.add_row(split.split, str(split.tiles), str(split.rois), str(split.patients))
    console.print(splits)
    _print_classes(summary.classes)
    arrays = Table("array", "shape", "type", "MB", "of raw")
    for array in summary.arrays:
        share = array.stored_bytes / array.raw_bytes if array.raw_bytes else 0.0
        shape = " x ".join(str(side) for side in array.shape)
        arrays.add_row(array.name, shape, array.dtype, f"{array.stored_bytes / 1e6:.1f}", f"{share:.0%}")
    console.print(arrays)
    points = ", ".join(f"{mean:.1f} {name}" for name, mean in summary.prompts.items())
    console.print(f"points an object: {points}, and a box")
    settings = {key: value for key, value in summary.config.items() if value not in ([], None)}
    console.print(as_markup("settings: " + ", ".join(f"{k}={v}" for k, v in settings.items())), highlight=False)
    if summary.kept_out:
        console.print(f"kept out, without a wanted class: {as_markup(', '.join(summary.kept_out))}")


def main() -> None:
    """Entry point of `bcss-prep`."""
    run_command(app, "bcss-prep")


if __name__ == "__main__":
    main()
