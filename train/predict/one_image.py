"""Predict one image or slide: lay the grid, find the objects, and write the files of results."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from train.predict.image_predictor import ImagePredictor
from train.predict.prompted import predict_prompted
from train.predict.search import search
from train.predict.settings import PredictSettings, PromptOptions
from train.predict.window_rows import WindowRows
from train.prompts.object_class import ObjectClass
from train.prompts.object_prompt import ObjectPrompt
from train.prompts.region import on_grid
from train.results.done_record import DoneRecord, ImageSummary, remove_files, write_record
from train.results.found_object import FoundObject
from train.results.page import remove_page
from train.results.placed_object import placed
from train.results.result_files import open_writers, write_all
from train.slide.image_source import ImageSource, open_source
from train.slide.working_grid import WorkingGrid

WORK_FOLDER = ".work"
RESAMPLE_MPP_TOLERANCE = 0.02
"""Images are not resampled if two resolutions differ by at most this share: scanners write 0.499 for 0.5."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictProgress:
    """The progress of one image.

    Attributes:
        name: Stem of the image.
        done: Number of finished windows, or of finished objects if there are prompts.
        total: Number of all windows or objects.
        pixels: Number of pixels of the finished windows, in pixels of the grid.
        seconds: Seconds since the first window of the image was read.
    """

    name: str
    done: int
    total: int
    pixels: int
    seconds: float


def predict_image(
    predictor: ImagePredictor,
    path: Path,
    out: Path,
    settings: PredictSettings,
    asked: Sequence[ObjectPrompt],
    digest: str,
    categories: Mapping[str, int],
    on_progress: Callable[[PredictProgress], None] | None = None,
) -> ImageSummary:
    """Predict an image into a folder; an interrupted search is continued.

    Args:
        predictor: The model.
        path: Path of the image or slide.
        out: Folder for the results. They appear there when all are complete.
        settings: Settings of the prediction.
        asked: The prompts, in pixels of level 0; none with `settings.automatic`.
        digest: Digest of the image, the weights and the settings, for the record.
        categories: COCO's id of each class that objects may have.
        on_progress: Function called after each window or group of objects.

    Raises:
        SourceError: The image cannot be read, or results cannot be written.
    """
    begun = time.monotonic()
    grid = grid_of(predictor, open_source(path, settings.source_mpp_um), settings)
    work = out / WORK_FOLDER / path.stem
    results = work / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    pixels = 0

    def show(done: int, total: int, pixels_done: int) -> None:
        nonlocal pixels
        pixels = pixels_done
        if on_progress:
            on_progress(PredictProgress(path.stem, done, total, pixels_done, time.monotonic() - begun))

    objects = _objects(predictor, grid, settings, asked, WindowRows(work / "rows", digest), show)
    kinds = {kind.name: kind for kind in (*only_class(predictor), *(item.kind for item in asked if item.kind))}
    writers = open_writers(results, path.stem, grid, settings.formats, categories)
    classes = write_all(writers, placed(objects, grid))
    files = sorted(file.name for file in results.iterdir())
    # Another run may have written other kinds of files.
    remove_page(out, remove_files(out, path))
    for name in files:
        (results / name).replace(out / name)
    summary = ImageSummary(
        name=path.stem,
        objects=classes.total(),
        classes=dict(sorted(classes.items())),
        empty=len(asked) - classes.total() if asked else 0,
        seconds=time.monotonic() - begun,
        pixels=pixels if settings.automatic is None else grid.size_xy[0] * grid.size_xy[1],
        files=tuple(files),
        colors={name: f"#{bytes(kind.color).hex()}" for name, kind in kinds.items() if name in classes},
    )
    write_record(out, DoneRecord(digest=digest, summary=summary))
    shutil.rmtree(work, ignore_errors=True)
    return summary


def grid_of(predictor: ImagePredictor, source: ImageSource, settings: PredictSettings) -> WorkingGrid:
    """Lay the grid over an image at the resolution that the model was trained at.

    Args:
        predictor: The model, with the record of its training data.
        source: The image.
        settings: Settings with the resolution and the region, if the user gave them.
    """
    known = predictor.trained_on
    if known is not None and known.layout == "resize" and settings.mpp_um is None:
        return WorkingGrid.of(source, None, settings.region, square_px=known.tile_size_px)
    mpp_um = settings.mpp_um or (known.mpp_um if known else None)
    if mpp_um is not None and source.mpp_um is None and settings.mpp_um is None:
        what = "has no usable resolution; the resolution of training is used (--source-mpp changes that)"
        logger.warning("%s %s: %g um per pixel", source.path, what, mpp_um)
        source.mpp_um = mpp_um
    if known is not None and mpp_um is None and source.mpp_um is not None:
        what = "the model does not know the resolution of its training data, so pixels are used as they are"
        logger.warning("%s has %.3g um per pixel, but %s (--mpp changes that)", source.path, source.mpp_um, what)
    if mpp_um is not None and source.mpp_um is not None and abs(source.mpp_um / mpp_um - 1) <= RESAMPLE_MPP_TOLERANCE:
        mpp_um = None
    return WorkingGrid.of(source, mpp_um, settings.region)


def _objects(
    predictor: ImagePredictor,
    grid: WorkingGrid,
    settings: PredictSettings,
    asked: Sequence[ObjectPrompt],
    rows: WindowRows,
    show: Callable[[int, int, int], None],
) -> Iterator[FoundObject]:
    """Yield the objects of an image; `show` gets the finished steps, all steps, and the pixels of finished windows."""
    if settings.automatic is not None:
        kind = next(iter(only_class(predictor)), None)
        for found in search(
            predictor,
            grid,
            predictor.window_px,
            settings.automatic,
            settings.overlap,
            tta=settings.tta,
            readers=settings.readers,
            rows=rows,
            on_window=lambda step: show(step.done, step.total, step.pixels),
        ):
            yield replace(found, kind=kind)
        return
    moved = list(on_grid(asked, grid))
    options = PromptOptions(predictor.window_px, settings.tta, settings.threshold)
    for found in predict_prompted(predictor, grid, moved, options, show):
        if found is not None and found.area_px * grid.level0_px >= settings.min_area_px:
            yield found


def only_class(predictor: ImagePredictor) -> list[ObjectClass]:
    """Return the only class that the model was trained on, in a list; the list is empty if there are several."""
    classes = predictor.trained_on.classes if predictor.trained_on else ()
    return [ObjectClass(info.name, info.color) for info in classes] if len(classes) == 1 else []
