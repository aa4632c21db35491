"""Predict many images and slides into one folder.

A stopped command can be resumed, memory use is bounded, and several processes can share the work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from schemas.errors import BcssError, ConfigError, SourceError, joined
from train.predict.asked_object import AskedObject, PromptsOfImages
from train.predict.done_record import DoneRecord, ImageSummary, check_done, remove_files, summary_of, write_record
from train.predict.found_object import FoundObject, ObjectClass
from train.predict.image_predictor import ImagePredictor
from train.predict.page import write_page
from train.predict.placed_object import PlacedObject, placed
from train.predict.prompted import PromptOptions, in_region, on_grid, predict_asked
from train.predict.raster_files import LabelImage, OverlayPicture
from train.predict.search import search
from train.predict.settings import PredictSettings
from train.predict.vector_files import CocoFile, CsvFile, GeoJsonFile, ObjectWriter
from train.predict.window_rows import WindowRows
from train.runtime.distributed import World
from train.slide.image_source import ImageSource, is_turned, open_source, read_header
from train.slide.working_grid import WorkingGrid

logger = logging.getLogger(__name__)

WORK_FOLDER = ".work"
SAME_MPP = 0.02
"""Images are not resampled if two resolutions differ by at most this share: scanners write 0.499 for 0.5."""


@dataclass(frozen=True)
class PredictProgress:
    """The progress of one image.

    Attributes:
        name: Stem of the image.
        done: Number of finished windows, or of finished objects if there are prompts.
        total: Number of all windows or objects.
        pixels: Number of pixels of the finished windows, in pixels of the grid.
        seconds: Seconds since this image was opened.
    """

    name: str
    done: int
    total: int
    pixels: int
    seconds: float


def predict_images(
    predictor: ImagePredictor,
    sources: Sequence[Path],
    out: Path,
    settings: PredictSettings,
    prompts: PromptsOfImages | None = None,
    world: World = World(),  # noqa: B008
    on_progress: Callable[[PredictProgress], None] | None = None,
    on_image: Callable[[ImageSummary], None] | None = None,
) -> None:
    """Predict images into a folder; images that already have results there are skipped.

    If an image fails, the others are predicted before the error is raised.

    Args:
        predictor: The model.
        sources: Paths of the images and slides.
        out: Folder for the results.
        settings: Settings of the prediction.
        prompts: The prompts; None with `settings.automatic`.
        world: The processes that share the images.
        on_progress: Function called after each window or group of objects.
        on_image: Function called with the summary of each image that this process has finished.

    Raises:
        ConfigError: The folder holds results of other settings, no prompt belongs to a given image, or a region is
            given for several images.
        SourceError: Images cannot be read, prompts lie outside their image, or results cannot be written.
    """
    if settings.region and len(sources) > 1:
        raise ConfigError("--region", f"works with one image, but {len(sources)} are given", "predict one at a time")
    asked = {path: prompts.of(path, alone=len(sources) == 1) if prompts else [] for path in sources}
    if prompts is not None:
        _check_prompts(prompts, asked)
        asked = {path: _in_region(path, items, settings, prompts) for path, items in asked.items()}
    own = list(sources)[world.rank :: world.size]
    digests = world.together(lambda: _digests(predictor, own, out, settings, asked))
    turned = [path for path in own if _is_turned(path)]
    if turned:
        logger.warning("images that their orientation tag rotates or flips: %d, such as %s", len(turned), turned[0])
    problems: list[BcssError] = []
    for path in own:
        try:
            summary = summary_of(out, path, digests[path])
            if summary is not None:
                logger.info("%s is up to date", path.name)
            else:
                summary = _predict_image(predictor, path, out, settings, asked[path], digests[path], on_progress)
        except BcssError as error:
            problems.append(error)
        except OSError as error:
            # The disk is full or broken, so the next images would fail, too.
            problems.append(SourceError(path, f"is not finished ({error})", "remove the cause, and repeat the command"))
            break
        else:
            if on_image:
                on_image(summary)
    problems = [problem for some in world.gather(problems) for problem in some]
    if world.is_main:
        write_page(out, [summary for path in sources if (summary := summary_of(out, path))])
    if problems:
        raise joined(out, problems)


def _is_turned(path: Path) -> bool:
    with suppress(SourceError, OSError):
        return is_turned(path)
    # A damaged image is reported when it is its turn, so that the others are predicted.
    return False


def _check_prompts(prompts: PromptsOfImages, asked: dict[Path, list[AskedObject]]) -> None:
    without = [path.name for path, objects in asked.items() if not objects]
    if len(without) == len(asked):
        named = ", ".join(filter(None, list(prompts.asked)[:3]))
        what = f"has no prompt for {without[0]}" + (f"; it names {named}" if named else "")
        raise ConfigError(prompts.path, what, "give prompts the names of their images")
    if without:
        logger.warning("%s: %d images have no prompt, such as %s", prompts.path, len(without), without[0])
    unused = [name for name in prompts.asked if name and name not in prompts.used]
    if unused:
        logger.warning("%s: %d images with prompts are not given, such as %s", prompts.path, len(unused), unused[0])


def _in_region(
    path: Path, asked: list[AskedObject], settings: PredictSettings, prompts: PromptsOfImages
) -> list[AskedObject]:
    """Check the prompts of an image by its header, before any image is predicted."""
    if not asked:
        return asked
    try:
        header = read_header(path)
    except SourceError:
        # A damaged image is reported when its turn comes.
        return asked
    origin_xy = header.qupath_origin_xy if prompts.is_qupath else (0, 0)
    return in_region(asked, path, header.size_xy, settings.region, origin_xy)


def _digests(
    predictor: ImagePredictor,
    paths: Sequence[Path],
    out: Path,
    settings: PredictSettings,
    asked: dict[Path, list[AskedObject]],
) -> dict[Path, str]:
    """Return the digest of each image, and check that its results may be written."""
    digests = {path: _digest(predictor, path, settings, asked[path]) for path in paths}
    for path in paths:
        check_done(out, path, digests[path], overwrite=settings.overwrite)
    return digests


def _digest(predictor: ImagePredictor, path: Path, settings: PredictSettings, asked: Sequence[AskedObject]) -> str:
    with path.open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    weights = predictor.weights.sha256 if predictor.weights else ""
    values = asdict(replace(settings, overwrite=False, readers=1))
    text = json.dumps([source, weights, predictor.window_px, values, [asdict(item) for item in asked]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
        what = "does not state its resolution; the resolution of training is used (--source-mpp changes that)"
        logger.warning("%s %s: %g um per pixel", source.path, what, mpp_um)
        source.mpp_um = mpp_um
    if mpp_um is not None and source.mpp_um is not None and abs(source.mpp_um / mpp_um - 1) <= SAME_MPP:
        mpp_um = None
    return WorkingGrid.of(source, mpp_um, settings.region)


def _predict_image(
    predictor: ImagePredictor,
    path: Path,
    out: Path,
    settings: PredictSettings,
    asked: Sequence[AskedObject],
    digest: str,
    on_progress: Callable[[PredictProgress], None] | None,
) -> ImageSummary:
    begun = time.monotonic()
    grid = grid_of(predictor, open_source(path, settings.source_mpp_um), settings)
    work = out / WORK_FOLDER / path.stem
    results = work / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    missing: list[int] = []
    objects = _objects(predictor, grid, settings, asked, work, digest, on_progress, missing)
    kinds = list({item.kind.name: item.kind for item in asked if item.kind}.values())
    writers = _writers(results, path.stem, grid, settings, [*kinds, *_only_class(predictor)])
    classes = _write_all(writers, placed(objects, grid))
    files = sorted(file.name for file in results.iterdir())
    # Another run may have written other kinds of files.
    remove_files(out, path)
    for name in files:
        (results / name).replace(out / name)
    seconds, pixels = time.monotonic() - begun, grid.size_xy[0] * grid.size_xy[1]
    summary = ImageSummary(
        name=path.stem,
        objects=sum(classes.values()),
        classes=dict(sorted(classes.items())),
        empty=len(missing),
        seconds=seconds,
        pixels=pixels,
        files=tuple(files),
    )
    write_record(out, DoneRecord(digest=digest, summary=summary))
    shutil.rmtree(work, ignore_errors=True)
    return summary


def _write_all(writers: Sequence[ObjectWriter], objects: Iterable[PlacedObject]) -> Counter[str]:
    """Pass each object to all writers, and count the objects by class."""
    classes: Counter[str] = Counter()
    open_writers = list(writers)
    try:
        for item in objects:
            classes[item.found.kind.name if item.found.kind else ""] += 1
            for writer in writers:
                writer.add(item)
        while open_writers:
            open_writers[-1].close()
            open_writers.pop()
    finally:
        for writer in open_writers:
            writer.discard()
    return classes


def _objects(
    predictor: ImagePredictor,
    grid: WorkingGrid,
    settings: PredictSettings,
    asked: Sequence[AskedObject],
    work: Path,
    digest: str,
    on_progress: Callable[[PredictProgress], None] | None,
    missing: list[int],
) -> Iterator[FoundObject]:
    """Yield the objects of an image, and add the number of each prompt that gave no object to `missing`."""
    name, begun = grid.source.path.stem, time.monotonic()

    def show(done: int, total: int, pixels: int) -> None:
        if on_progress:
            on_progress(PredictProgress(name, done, total, pixels, time.monotonic() - begun))

    if settings.automatic is not None:
        kind = next(iter(_only_class(predictor)), None)
        rows = WindowRows(work / "rows", digest)
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
    for number, found in enumerate(predict_asked(predictor, grid, moved, options, show)):
        if found is None or found.area_px * grid.level0_px < settings.min_area_px:
            missing.append(number)
        else:
            yield found


def _only_class(predictor: ImagePredictor) -> list[ObjectClass]:
    """Return the only class that the model was trained on, in a list; the list is empty if there are several."""
    classes = predictor.trained_on.classes if predictor.trained_on else ()
    return [ObjectClass(info.name, info.color) for info in classes] if len(classes) == 1 else []


def _writers(
    folder: Path, stem: str, grid: WorkingGrid, settings: PredictSettings, kinds: list[ObjectClass]
) -> list[ObjectWriter]:
    found: list[ObjectWriter] = []
    try:
        _open_writers(found, folder, stem, grid, settings, kinds)
    except BaseException:
        for writer in found:
            writer.discard()
        raise
    return found


def _open_writers(
    found: list[ObjectWriter],
    folder: Path,
    stem: str,
    grid: WorkingGrid,
    settings: PredictSettings,
    kinds: list[ObjectClass],
) -> None:
    if "geojson" in settings.formats:
        found.append(GeoJsonFile(folder / f"{stem}.geojson", grid.source.qupath_origin_xy))
    if "masks" in settings.formats:
        found.append(LabelImage(folder / f"{stem}.labels", grid))
    if "coco" in settings.formats:
        found.append(CocoFile(folder / f"{stem}.coco.json", grid, kinds))
    if "csv" in settings.formats:
        found.append(CsvFile(folder / f"{stem}.csv"))
    if "overlay" in settings.formats:
        found.append(OverlayPicture(folder / f"{stem}.overlay.jpg", grid, grid.preview))
