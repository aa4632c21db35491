"""Predict many images and slides into one folder.

A stopped command can be resumed, memory use is bounded, and several processes can share the work.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from schemas.errors import BcssError, ConfigError, SourceError, joined
from train.predict.image_predictor import ImagePredictor
from train.predict.one_image import PredictProgress, predict_image
from train.predict.settings import PredictSettings
from train.prompts.asked_object import AskedObject
from train.prompts.prompts_of_images import PromptsOfImages
from train.prompts.region import in_region
from train.results.done_record import ImageSummary, check_done, summary_of
from train.results.page import write_page
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
    asked: dict[Path, list[AskedObject]] = {path: [] for path in sources}
    if prompts is not None:
        asked = {path: _in_region(path, items, settings, prompts) for path, items in prompts.by_image(sources).items()}
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
                summary = predict_image(predictor, path, out, settings, asked[path], digests[path], on_progress)
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
