"""Predict many images and slides into one folder.

A stopped command can be resumed, memory use is bounded, and several processes can share the work.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from schemas.errors import BcssError, ConfigError, SourceError, joined
from train.predict.image_predictor import ImagePredictor
from train.predict.one_image import WORK_FOLDER, PredictProgress, only_class, predict_image
from train.predict.settings import PredictSettings
from train.prompts.object_prompt import ObjectPrompt
from train.prompts.prompts_of_images import PromptsOfImages
from train.prompts.region import in_region
from train.results.categories import category_ids
from train.results.done_record import ImageSummary, check_done, summaries, summary_of
from train.results.out_folder import check_nothing_foreign
from train.results.page import PAGE_FILE, write_page
from train.runtime.distributed import World
from train.slide.image_source import is_turned, read_header

logger = logging.getLogger(__name__)


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
    asked = prompts.by_image(sources) if prompts is not None else {}
    if prompts is not None and world.is_main:
        prompts.warn_of_unmatched(sources)
    own = list(sources)[world.rank :: world.size]
    jobs, problems = world.together(lambda: _jobs(predictor, own, out, settings, prompts, asked))
    categories = _categories(predictor, asked)
    turned = [job.path for job in jobs if _is_turned(job.path)]
    if turned:
        logger.warning("images that their orientation tag rotates or flips: %d, such as %s", len(turned), turned[0])
    for job in jobs:
        try:
            summary = summary_of(out, job.path, job.digest)
            if summary is not None:
                logger.info("%s is up to date", job.path.name)
            else:
                summary = predict_image(
                    predictor, job.path, out, settings, job.asked, job.digest, categories, on_progress
                )
        except BcssError as error:
            problems.append(error)
        except OSError as error:
            # The disk is full or broken, so the next images would fail, too.
            problems.append(_unfinished(job.path, error))
            break
        else:
            if on_image:
                on_image(summary)
    problems = [problem for some in world.gather(problems) for problem in some]
    if world.is_main:
        try:
            write_page(out, summaries(out))
        except OSError as error:
            problems.append(_unfinished(out / PAGE_FILE, error))
    if problems:
        raise joined("predict", problems)


def _categories(predictor: ImagePredictor, asked: Mapping[Path, list[ObjectPrompt]]) -> dict[str, int]:
    """Return COCO's id of each class that an object of any image may have."""
    kinds = {item.kind.name: item.kind for items in asked.values() for item in items if item.kind}
    classes = predictor.trained_on.classes if predictor.trained_on else ()
    return category_ids(kinds.values() if asked else only_class(predictor), {info.name: info.code for info in classes})


def _unfinished(path: Path, error: OSError) -> SourceError:
    return SourceError(path, f"is not finished ({error})", "remove the cause, and repeat the command")


def _is_turned(path: Path) -> bool:
    with suppress(SourceError):
        return is_turned(path)
    # A damaged image is reported when it is its turn, so that the others are predicted.
    return False


@dataclass(frozen=True)
class _Job:
    """One image to predict.

    Attributes:
        path: Its path.
        asked: Its prompts, in pixels of level 0.
        digest: Digest of the model, the image, the prompts and the settings.
    """

    path: Path
    asked: list[ObjectPrompt]
    digest: str


def _jobs(
    predictor: ImagePredictor,
    paths: Sequence[Path],
    out: Path,
    settings: PredictSettings,
    prompts: PromptsOfImages | None,
    asked: Mapping[Path, list[ObjectPrompt]],
) -> tuple[list[_Job], list[BcssError]]:
    """Check all images by their headers before one is predicted, and return those to predict, and what is damaged."""
    jobs: list[_Job] = []
    problems: list[BcssError] = []
    for path in paths:
        own = asked.get(path, [])
        try:
            header = read_header(path) if own else None
            source = _sha256(path)
        except SourceError as error:
            problems.append(error)
            continue
        if header is not None and prompts is not None:
            prompts.check_size(path, header.size_xy)
            origin_xy = header.qupath_origin_xy if prompts.is_qupath else (0, 0)
            own = in_region(own, path, header.size_xy, settings.region, origin_xy)
        digest = _digest(predictor, source, settings, own)
        check_done(out, path, digest, overwrite=settings.overwrite)
        # A kill may have left results without a record. Then the working folder is still there.
        if not settings.overwrite and not (out / WORK_FOLDER / path.stem).exists():
            check_nothing_foreign(out, path, settings.formats)
        jobs.append(_Job(path, own, digest))
    return jobs, problems


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error


def _digest(predictor: ImagePredictor, source: str, settings: PredictSettings, asked: Sequence[ObjectPrompt]) -> str:
    weights = predictor.weights.sha256 if predictor.weights else ""
    values = asdict(replace(settings, overwrite=False, readers=1))
    text = json.dumps([source, weights, predictor.window_px, values, [asdict(item) for item in asked]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
