"""`bcss-train predict`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.command.console import interrupted_as_line, printable, progress_bar, shown_on
from train.backbone.catalog import ModelSize
from train.choices import RESULT_FORMATS, DeviceChoice
from train.command.flags import ImageSize, finite, refuse_flags

if TYPE_CHECKING:
    from tqdm import tqdm

    from train.predict.one_image import PredictProgress
    from train.results.done_record import ImageSummary


def _region(text: str | None) -> str | None:
    if text is not None and [part.strip().isdecimal() for part in text.split(",")] != [True] * 4:
        raise typer.BadParameter(f"{text!r} is not X,Y,W,H in pixels")
    return text


def _formats(text: str) -> str:
    for name in text.split(","):
        if name not in RESULT_FORMATS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(RESULT_FORMATS)}")
    return text


_FLAGS_OF_FRAMES = ("checkpoint", "sources", "out", "first_mask", "model", "image_size", "device", "overwrite")
_FLAGS_OF_SEARCH = ("grid", "overlap", "iou_threshold", "stability_threshold", "nms", "batch_size", "workers")


def predict(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of bcss-train or of Meta.")],
    sources: Annotated[list[Path], typer.Argument(help="Images (PNG, JPEG, TIFF), slides, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    prompts: Annotated[
        Path | None, typer.Option(help="QuPath GeoJSON, CSV or COCO file with boxes and clicks, in pixels of level 0.")
    ] = None,
    first_mask: Annotated[
        Path | None,
        typer.Option(help="Mask of the first frame of a video or a folder of frames; each value is an object."),
    ] = None,
    automatic: Annotated[bool, typer.Option("--automatic", help="Find all objects with a grid of clicks.")] = False,
    grid: Annotated[int, typer.Option(min=1, max=256, help="Clicks along each side of a window.")] = 32,
    region: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", callback=_region, help="Part of the image, in pixels of level 0.")
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option(
            min=0.001, callback=finite, help="Micrometers per pixel to work at; by default, the resolution of training."
        ),
    ] = None,
    source_mpp: Annotated[
        float | None,
        typer.Option(min=0.001, callback=finite, help="Micrometers per pixel of the images, if they do not state it."),
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of a window that the next window also shows.")
    ] = 0.25,
    formats: Annotated[
        str,
        typer.Option("--format", callback=_formats, help=f"Files to write: some of {','.join(RESULT_FORMATS)}."),
    ] = "geojson,masks,csv,overlay",
    min_area: Annotated[int, typer.Option(min=1, help="Smallest area of an object, in pixels of level 0.")] = 1,
    iou_threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest IoU estimate with --automatic.")] = 0.8,
    stability_threshold: Annotated[float, typer.Option(min=0, max=1, help="Lowest stability with --automatic.")] = 0.95,
    nms: Annotated[float, typer.Option(min=0, max=1, help="Largest IoU of two boxes with --automatic.")] = 0.7,
    tta: Annotated[bool, typer.Option("--tta", help="Average logits over the eight flips and rotations.")] = False,
    threshold: Annotated[
        float, typer.Option(callback=finite, help="A pixel whose logit is above this is in the mask.")
    ] = 0.0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clicks in one pass with --automatic; 64 on a GPU, 8 on a CPU.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read windows ahead.")] = 1,
    model: Annotated[ModelSize | None, typer.Option(help="Network of an official checkpoint.")] = None,
    image_size: ImageSize = None,
    device: Annotated[DeviceChoice, typer.Option(help="auto uses CUDA if it is available.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other results and files in the way.")] = False,
) -> None:
    """Segment images and slides, from prompts or without; repeat the command to continue after an interruption."""
    import torch

    from train.predict.automatic import AutomaticOptions
    from train.predict.image_predictor import load_predictor
    from train.predict.run import predict_images
    from train.predict.settings import PredictSettings
    from train.prompts.prompts_of_images import PromptsOfImages
    from train.results.out_folder import check_out_folder
    from train.runtime.device import pick_device
    from train.runtime.distributed import NO_TIMEOUT, open_world, raised_once, use_own_gpu
    from train.runtime.folder_lock import locked_by_first
    from train.slide.image_source import find_sources

    if sum((automatic, prompts is not None, first_mask is not None)) != 1:
        raise typer.BadParameter("give one of --prompts, --automatic and --first-mask")
    if first_mask is not None:
        refuse_flags(context, "--first-mask", lambda name: name in _FLAGS_OF_FRAMES)
        _predict_frames(checkpoint, sources, first_mask, out, (device, model, image_size), overwrite=overwrite)
        return
    if prompts is not None:
        refuse_flags(context, "--prompts", lambda name: name not in _FLAGS_OF_SEARCH)
    options = AutomaticOptions(grid, iou_threshold, stability_threshold, nms, min_area, threshold, batch_size)
    part = tuple(int(value) for value in region.split(",")) if region else None
    settings = PredictSettings(
        tuple(name for name in RESULT_FORMATS if name in formats.split(",")),
        options if automatic else None,
        mpp,
        source_mpp,
        (part[0], part[1], part[2], part[3]) if part else None,
        overlap,
        tta,
        threshold,
        min_area,
        workers,
        overwrite,
    )
    files = find_sources(sources)
    check_out_folder(out, files, prompts)
    asked = PromptsOfImages.read(prompts) if prompts else None
    interrupted = interrupted_as_line("finished work is kept; run the same command to continue")
    found: list[ImageSummary] = []
    with interrupted, open_world("cpu", NO_TIMEOUT) as world:
        chosen = pick_device(device)
        if chosen.type == "cuda":
            chosen = torch.device("cuda", use_own_gpu())
        predictor = load_predictor(checkpoint, chosen, model, image_size)
        try:
            with (
                raised_once(world),
                locked_by_first(out, world),
                progress_bar("predict", "window" if automatic else "object", silent=not world.is_main) as bar,
            ):
                show = partial(_show, bar)
                predict_images(predictor, files, out, settings, asked, world, on_progress=show, on_image=found.append)
        finally:
            for summary in found:
                _print(summary, out)


def _predict_frames(
    checkpoint: Path,
    sources: list[Path],
    first_mask: Path,
    out: Path,
    network: tuple[DeviceChoice, ModelSize | None, int | None],
    *,
    overwrite: bool,
) -> None:
    """Follow the objects of the first frame's mask through a folder of frames or a video."""
    from train.model.loading import check_network, load_mask_predictor
    from train.propagate.frames_folder import predict_frames
    from train.runtime.device import pick_device
    from train.runtime.folder_lock import locked_folder

    if len(sources) != 1:
        raise typer.BadParameter("--first-mask needs one folder of frames or one video")
    device, model, image_size = network
    predictor = load_mask_predictor(checkpoint, pick_device(device), model, image_size)
    check_network([predictor.model], model, image_size)
    lost = interrupted_as_line("the masks of the frames so far are kept; run the same command to start again")
    with lost, locked_folder(out), progress_bar("predict", "frame") as bar:
        written = predict_frames(predictor, sources[0], first_mask, out, shown_on(bar), overwrite=overwrite)
    typer.echo(printable(f"{len(written)} masks in {out}"))


def _show(bar: tqdm[Any], step: PredictProgress) -> None:
    """Move the bar; it starts again with each image."""
    title = f"predict {printable(step.name)}"
    if getattr(bar, "desc", "") != title:
        # `bar.reset` would write a line to a log file for each image.
        bar.n = bar.initial = bar.last_print_n = 0
        bar.start_t = time.time() - step.seconds
        bar.total = step.total
        bar.set_description_str(title, refresh=False)
    bar.set_postfix_str(f"{step.pixels / max(step.seconds, 1e-3) / 1e6:.2f} Mpx/s", refresh=False)
    bar.update(step.done - bar.n)


def _print(summary: ImageSummary, out: Path) -> None:
    classes = ", ".join(f"{count} {name}" for name, count in summary.classes.items() if name)
    by_class = f" ({classes})" if classes else ""
    empty = f", {summary.empty} prompts without an object" if summary.empty else ""
    rate = f"{summary.seconds:.1f} s, {summary.pixels / max(summary.seconds, 1e-3) / 1e6:.2f} Mpx/s"
    # People look at the GeoJSON file first.
    first, *others = sorted(summary.files, key=lambda name: not name.endswith(".geojson"))
    where = f"{out / first}" + (f" and {len(others)} more files there" if others else "")
    typer.echo(printable(f"{summary.name}: {summary.objects} objects{by_class}{empty}; {rate}; {where}"))
