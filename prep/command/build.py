"""`bcss-prep build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from schemas.codec_names import CodecName
from schemas.command.console import interrupted_as_line, printable, progress_bar
from schemas.limits import MAX_POINTS, MAX_TILE_PX

if TYPE_CHECKING:
    from prep.build import BuildProgress
    from prep.config import BuildConfig
    from prep.source.class_map import ClassEntry
    from prep.source.discover import DataSet
    from prep.source.split import SplitRule


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


def build(
    source: Annotated[
        Path, typer.Argument(help="Folder with images/ and masks/, or a CSV file with the columns image and mask.")
    ],
    out: Annotated[str, typer.Option(help="Store to write: a path, or a URL like s3://bucket/bcss.zarr.")],
    dataset: Annotated[
        Literal["auto", "bcss", "generic", "voc", "instances"],
        typer.Option(
            help="Rules for codes. generic: each code except 0 is a class; 255 is ignored. auto: bcss for files named "
            "as in BCSS, else generic."
        ),
    ] = "auto",
    images: Annotated[str, typer.Option(help="Folder of images in SOURCE.")] = "images",
    masks: Annotated[str, typer.Option(help="Folder of masks in SOURCE.")] = "masks",
    image_suffix: Annotated[str, typer.Option(help="Ending of image names before the extension, such as _0000.")] = "",
    mask_suffix: Annotated[str, typer.Option(help="Ending of mask names before the extension, such as _mask.")] = "",
    sequences: Annotated[
        bool,
        typer.Option(
            "--sequences",
            help="Each folder of images is a sequence; each mask value but 0 and 255 is one object in all its frames.",
        ),
    ] = False,
    unpaired: Annotated[
        Literal["error", "skip"] | None,
        typer.Option(
            help="What to do with an image without a mask, or a mask without an image. Default: error; a frame of a "
            "sequence may lack a mask."
        ),
    ] = None,
    layout: Annotated[
        Literal["tile", "resize"], typer.Option(help="Cut tiles, or resize each ROI to one square.")
    ] = "tile",
    size: Annotated[
        int,
        typer.Option(
            min=8, max=MAX_TILE_PX, callback=_multiple_of_8, help="Side of a tile in pixels, a multiple of 8."
        ),
    ] = 1024,
    stride: Annotated[int | None, typer.Option(min=1, help="Step between tiles in pixels. Default: --size.")] = None,
    edge: Annotated[
        Literal["shift", "pad"],
        typer.Option(help="Shift the last row and column of tiles into the ROI, or pad them with ignored pixels."),
    ] = "shift",
    mpp: Annotated[
        float | None,
        typer.Option(
            callback=_positive,
            help="Resample ROIs to this many micrometers per pixel. Names and TIFF tags give their own resolution.",
        ),
    ] = None,
    source_mpp: Annotated[
        float | None,
        typer.Option(
            callback=_positive,
            help="Micrometers per pixel of ROIs whose names (as MPP-0.2500) and TIFF tags do not state it.",
        ),
    ] = None,
    min_tissue: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out tiles where a smaller share of the pixels is not ignored.")
    ] = 0.0,
    objects: Annotated[
        Literal["label", "component", "instance"] | None,
        typer.Option(
            help="Make one object of each class in a tile, of each connected component, or of each value of the mask. "
            "Default: label."
        ),
    ] = None,
    class_mask: Annotated[
        str, typer.Option(help="Folder in SOURCE with the class of each pixel, for instances and sequences.")
    ] = "",
    instance_classes: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with id and class, and frame_id or sequence if ids repeat, for instances and sequences."
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Codes, ranges or names of classes that become objects, or 'all'. Default: 1,2,3,4,18 for BCSS, "
            "all for other data."
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            help="Codes or names of classes that are left out of loss and scores, or 'none'. Default: 0,7,15 for BCSS, "
            "none for images of instances, else 255."
        ),
    ] = None,
    class_map: Annotated[
        Path | None, typer.Option(help="TSV or JSON file with code, name, color, and 'into' to merge codes.")
    ] = None,
    colors: Annotated[
        Path | None,
        typer.Option(help="Class map with a column color (#rrggbb), for masks whose colors are the classes."),
    ] = None,
    nearest_color: Annotated[
        bool, typer.Option("--nearest-color", help="Replace an unknown color of a mask by the nearest known one.")
    ] = False,
    min_area: Annotated[
        int | None,
        typer.Option(min=1, help="Minimum area of an object in pixels. Default: 64 for components, else 1."),
    ] = None,
    positive_points: Annotated[int, typer.Option(min=1, max=MAX_POINTS, help="Positive points of each object.")] = 8,
    negative_points: Annotated[int, typer.Option(min=0, max=MAX_POINTS, help="Negative points of each object.")] = 8,
    split_file: Annotated[
        Path | None,
        typer.Option(help="CSV file with patient (or frame_id) and split. Default: BCSS's own, or 70,15,15 %."),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(help="CSV file with frame_id (or sequence) and patient, for names without a TCGA barcode."),
    ] = None,
    split_fractions: Annotated[
        str | None, typer.Option(callback=_fractions, help="Shares of patients in train,val,test, drawn with --seed.")
    ] = None,
    codec: Annotated[
        CodecName, typer.Option(help="Compress images for fast reading or for little space, both without loss.")
    ] = "fast",
    seed: Annotated[int, typer.Option(min=0, help="Seed of points and of --split-fractions.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of processes. Default: one per core, or fewer if the images are small."),
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler to run on, or 'local'.", metavar="ADDRESS")
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Working folder. Default: OUT.partial. Dask workers must reach it under the same path."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing store, and discard unfinished work of another build."),
    ] = False,
) -> None:
    """Build a store from images and masks; after an interruption, repeat the command to continue."""
    from prep.build import BuildOptions, build_store
    from prep.config import BuildConfig
    from prep.inspect import class_counts, has_padding, ignored_share
    from prep.parallel import useful_processes
    from prep.plan import read_source
    from prep.preset import GivenRules, dataset_rules
    from prep.source.folders import Folders
    from prep.source.split import file_patients
    from prep.summary_tables import print_classes
    from schemas.store.store import open_store

    class_table = _class_map(class_map, colors, nearest_color)
    folders = Folders(images, masks, class_mask, image_suffix, mask_suffix, unpaired, sequences)
    data = read_source(source, folders, file_patients(patients) if patients else None)
    has_classes = bool(instance_classes) or any(roi.class_mask_path for roi in data.rois)
    by_color = colors is not None
    given = GivenRules(dataset, objects, classes, ignore, class_table, has_classes, data.has_sequences, by_color)
    rules = dataset_rules(data.rois, given)
    config = BuildConfig(
        dataset=rules.dataset,
        images=images,
        masks=masks,
        image_suffix=image_suffix,
        mask_suffix=mask_suffix,
        unpaired=unpaired,
        class_masks=class_mask,
        instance_classes=_instance_classes(instance_classes, data, (image_suffix, mask_suffix), rules.class_map),
        nearest_color=nearest_color,
        color_masks=by_color,
        sequences=data.has_sequences,
        layout=layout,
        size_px=size,
        stride_px=stride or size,
        edge=edge,
        mpp_um=mpp,
        source_mpp_um=source_mpp,
        min_tissue=min_tissue,
        objects=rules.objects,
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
    continues = "finished work is kept, and the same command continues from it"
    with interrupted_as_line(continues), progress_bar("prepare", "ROI") as bar:
        processes = workers or useful_processes(roi.image_path for roi in data.rois)
        options = BuildOptions(processes, dask, overwrite, work_dir, on_progress=lambda step: _show(bar, step))
        manifest = build_store(data, out, config, options, splitter)
    print_classes(class_counts(open_store(out)))
    counts = f"{manifest.complete.tiles} tiles, {manifest.complete.objects} objects"
    counts += f" in {len(manifest.sequences)} sequences" if manifest.sequences else ""
    share, codes = ignored_share(manifest), ignore or ",".join(map(str, rules.ignore)) or "none"
    how = f"--ignore {codes}" + (", and padding" if has_padding(manifest) else "")
    shown = "more than 99%" if 0.995 <= share < 1 else f"{share:.0%}"
    typer.echo(f"{printable(out)}: {counts}; {shown} of the pixels are ignored ({how})")


def _class_map(class_map: Path | None, colors: Path | None, nearest_color: bool) -> tuple[ClassEntry, ...]:
    """Return the entries of --class-map, or of --colors, where each entry has a color."""
    from prep.source.class_map import colors_of, read_class_map
    from schemas.errors import ConfigError

    if class_map and colors:
        raise ConfigError("--class-map", "and --colors are both given", "give one file with code, name and color")
    path = colors or class_map
    entries = read_class_map(path) if path else ()
    if (colors or nearest_color) and not colors_of(entries):
        raise ConfigError(path or "--nearest-color", "has no color", "give --colors with code, name and color")
    return entries


def _instance_classes(
    path: Path | None, data: DataSet, suffixes: tuple[str, str], class_map: tuple[ClassEntry, ...]
) -> tuple[tuple[str, int, int], ...]:
    """Return the class code of each instance in the table of --instance-classes."""
    from prep.config import code_of_class
    from prep.source.instances import read_instance_classes
    from schemas.errors import ConfigError

    if path is None:
        return ()
    masks = [roi.class_mask_path for roi in data.rois if roi.class_mask_path]
    if masks:
        what = f"gives the classes of instances, and so do masks such as {masks[0]}"
        raise ConfigError("--instance-classes", what, "choose one")
    named = read_instance_classes(path, {roi.sequence or roi.frame_id for roi in data.rois}, suffixes)
    codes = {name: code_of_class(name, class_map) for name in set(named.values())}
    return tuple((roi, number, codes[name]) for (roi, number), name in sorted(named.items()))


def _splitter(config: BuildConfig, split_file: Path | None, fractions: str | None) -> SplitRule | None:
    from prep.source.split import SplitRule, file_split, fraction_split
    from schemas.errors import ConfigError

    if split_file and fractions:
        raise ConfigError("--split-file", "and --split-fractions are both given", "choose one")
    if split_file:
        suffixes = (config.image_suffix, config.mask_suffix)
        return SplitRule(f"--split-file {split_file.name}", lambda rois: file_split(rois, split_file, suffixes))
    if fractions:
        shares = [float(part) for part in fractions.split(",")]
        method = f"--split-fractions {fractions}, seed {config.seed}"
        return SplitRule(method, lambda rois: fraction_split(rois, shares, config.seed))
    return None


def _show(bar: object, step: BuildProgress) -> None:
    from tqdm import tqdm

    assert isinstance(bar, tqdm)
    bar.total = step.total
    elapsed = max(bar.format_dict["elapsed"], 1e-3)
    rates = f"{step.tiles / elapsed:.1f} tiles/s, {step.source_bytes / elapsed / 1e6:.0f} MB/s"
    bar.set_postfix_str(rates, refresh=False)
    bar.update(step.done - bar.n)
