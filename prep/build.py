"""Build a store: find the ROIs, prepare each, join shards, write columns, publish.

Everything is written in a working folder beside the destination. The finished store, with its completion record, is
moved to the destination in one step. A killed build leaves its working folder, and the same command continues from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prep.built_store import built_store
from prep.config import ALL_CLASSES, BuildConfig
from prep.inspect import ignored_share
from prep.parallel import task_map
from prep.place.destination import check_replaceable, linked_place, occupied
from prep.place.local_store import publish_local, recover
from prep.place.object_store import publish_remote, remote_lock, remove_lock
from prep.place.workspace import build_token, open_workspace, remove_left_over
from prep.plan import BuildPlan, plan_build
from prep.source.discover import DataSet
from prep.source.split import Splitter
from prep.write.assemble import STORE_DIR, assemble
from prep.write.roi_folder import RoiFolder, RoiTask, write_roi_folder
from prep.write.tracks import check_tracks
from schemas.command.stage_timer import timed
from schemas.errors import ConfigError, SourceError, StoreError
from schemas.file_names import bounded_name
from schemas.manifest import SPLITS, Manifest
from schemas.script_guard import refuse_while_imported
from schemas.store.location import is_remote, normal_location, remote_errors

logger = logging.getLogger(__name__)

MUCH_IGNORED = 1 / 3
"""Fraction of ignored pixels above which a build warns: the ignored code may be background in this data set."""


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is; reported after each ROI.

    Attributes:
        done: ROIs prepared so far.
        total: All ROIs.
        tiles: Tiles cut so far.
        source_bytes: Decoded size in bytes of the images and masks so far.
    """

    done: int
    total: int
    tiles: int
    source_bytes: int


@dataclass(frozen=True)
class BuildOptions:
    """How a build runs; none of it changes what is built.

    Attributes:
        workers: Number of processes.
        dask_address: Address of a Dask scheduler to use instead of processes, or `local`.
        overwrite: Whether to replace an existing store once the new one is complete, and to discard the unfinished work
            of a build whose plan or source files were different.
        work_dir: Working folder; unless given, it is beside the destination, or in the current folder for an object
            store.
        on_progress: Called after each ROI.
    """

    workers: int = 1
    dask_address: str | None = None
    overwrite: bool = False
    work_dir: Path | None = None
    on_progress: Callable[[BuildProgress], None] | None = None


def build_store(
    source: Path | DataSet,
    destination: str | Path,
    config: BuildConfig,
    options: BuildOptions = BuildOptions(),
    splitter: Splitter | None = None,
    patients: Mapping[str, str] | None = None,
) -> Manifest:
    """Build a store from images and masks.

    Args:
        source: The folder that holds the folders of images and masks, a table of cases (see `prep.source.case_table`),
            or the ROIs themselves.
        destination: Path or URL of the store. A store that was built from the same sources with the same configuration
            is left as it is.
        config: What to build.
        options: How to run.
        splitter: Divides the patients into splits; unless given, the preset of the data set decides.
        patients: The patient of each ROI by its stem, or of each sequence by its name, for names that do not give it.

    Returns:
        The manifest of the store.

    Raises:
        SourceError: A source file cannot be used, or no training ROI contains a selected class.
        StoreError: The destination holds something else, or a file cannot be read or written.
        ConfigError: The configuration contradicts the sources, or the destination has no name.
    """
    refuse_while_imported("build_store")
    location = linked_place(normal_location(destination))
    work_dir = _work_dir(location, options)
    plan = plan_build(source, config, splitter, patients)
    with _os_errors_as_store_errors(location), remote_errors(location):
        recover(location, work_dir)
        built = None if options.overwrite else built_store(location, plan)
        if built is not None:
            logger.info("%s is up to date", location)
            remove_left_over(work_dir, plan.as_json(), lambda work: _unlock(location, work))
            return built.manifest
        if options.overwrite and occupied(location):
            check_replaceable(location)
        with open_workspace(work_dir, plan.as_json(), start_again=options.overwrite) as work:
            return _build_in(work, location, plan, options)


def _work_dir(location: str, options: BuildOptions) -> Path:
    """Return the working folder.

    Raises:
        ConfigError: The destination has no name, such as `.`, so a store cannot be moved there.
    """
    name = location.rsplit("/", 1)[-1] if is_remote(location) else Path(location).name
    if name in ("", ".."):
        raise ConfigError(f"--out {location}", "does not name a store", "give it a name, such as ./bcss.zarr")
    if options.work_dir is not None:
        return options.work_dir.absolute()
    beside = bounded_name(name, ".partial")
    return (Path(beside) if is_remote(location) else Path(location).with_name(beside)).absolute()


@contextmanager
def _os_errors_as_store_errors(location: str) -> Generator[None]:
    """Turn an OSError into an error that names the file, or the store if no file is known."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            error.filename or location,
            f"cannot be read or written ({reason})",
            "remove the cause, then repeat the command: it continues from here",
        ) from error


def _build_in(work: Path, location: str, plan: BuildPlan, options: BuildOptions) -> Manifest:
    """Build in a locked working folder."""
    tasks = _roi_tasks(work / "rois", plan, options)
    with ExitStack() as stack:
        if is_remote(location):
            stack.enter_context(remote_lock(location, build_token(work)))
        run = stack.enter_context(task_map(min(options.workers, len(tasks)), options.dask_address))
        folders = list(_reported(run(write_roi_folder, tasks), len(tasks), options.on_progress))
        check_tracks(plan.source_dir, folders)
        _check_splits(plan, folders)
        manifest = assemble(work, folders, plan, run)
        _warn_of_unnamed(plan, manifest)
        if ignored_share(manifest) > MUCH_IGNORED:
            what = "more than a third of the pixels count neither in training nor in scores"
            logger.warning("%s: %s; %s", location, what, _why_ignored(plan, manifest))
        with timed("publish"):
            _publish(work, location, overwrite=options.overwrite)
    return manifest


def _warn_of_unnamed(plan: BuildPlan, manifest: Manifest) -> None:
    """Warn of classes that a class map does not name, because their codes may be mistakes."""
    # The background, 0, is in the map of data that has no other names.
    named = {entry.code for entry in plan.config.class_map if entry.name} - {0}
    unnamed = [info for info in manifest.classes if info.code not in named]
    if plan.config.classes == ALL_CLASSES and named and unnamed:
        shown = ", ".join(f"{info.code} ({info.name})" for info in unnamed)
        remedy = "name them in the map, or leave them out with --classes"
        logger.warning("%s: codes that the class map does not name are classes: %s; %s", plan.source_dir, shown, remedy)


def _why_ignored(plan: BuildPlan, manifest: Manifest) -> str:
    """Say what to check if many pixels are ignored: frames without a mask, the tile size, or the ignored codes."""
    unlabeled = sum(source.mask is None for source in manifest.kept)
    if unlabeled > MUCH_IGNORED * len(manifest.kept):
        return f"{unlabeled} of {len(manifest.kept)} frames have no mask"
    longest = max(max(source.width_px, source.height_px) for source in manifest.sources)
    if plan.config.layout == "tile" and plan.config.mpp_um is None and longest < plan.config.size_px:
        return f"tiles of {plan.config.size_px} px are padded, as no ROI is longer than {longest} px; lower --size"
    return "check --ignore"


def _roi_tasks(folder: Path, plan: BuildPlan, options: BuildOptions) -> list[RoiTask]:
    folder.mkdir(exist_ok=True)
    digest = plan.digest[:8]
    return [
        RoiTask(
            roi,
            plan.splits[roi.patient],
            plan.source_dir,
            # The name has the plan's digest, because a cluster's worker may still write for a build of another plan.
            folder / f"{digest}-{number:06d}",
            plan.config,
            plan.specs,
            may_change=options.overwrite,
        )
        for number, roi in enumerate(plan.rois)
    ]


def _reported(
    folders: Iterator[RoiFolder], total: int, on_progress: Callable[[BuildProgress], None] | None
) -> Iterator[RoiFolder]:
    """Log and report each ROI."""
    tiles = source_bytes = 0
    for done, folder in enumerate(folders, start=1):
        source = folder.source
        if not source.objects and source.sequence is None:
            why = "contains no selected class" if source.tiles else "has no tile with --min-tissue"
            logger.warning("%s %s and is left out", source.mask, why)
        if folder.recolored_px:
            what = "pixels with an unknown color got the class of the nearest known color"
            logger.warning("%s: %s: %d", source.mask, what, folder.recolored_px)
        if folder.rims:
            rims = ", ".join(f"{code} ({count} px)" for code, count in sorted(folder.rims.items()))
            logger.warning(
                "%s: the codes %s occur only as thin rims between two other codes, as if the mask had been rotated or "
                "resized with blending; check it, and export it again without blending",
                source.mask,
                rims,
            )
        logger.debug("ROI %s: %d tiles, %d objects", source.frame_id, source.tiles, source.objects)
        tiles += source.tiles
        # Each pixel has three bytes of color and one byte of label.
        source_bytes += source.width_px * source.height_px * 4
        if on_progress:
            on_progress(BuildProgress(done, total, tiles, source_bytes))
        yield folder


def _check_splits(plan: BuildPlan, folders: list[RoiFolder]) -> None:
    """Check which splits have objects, now that it is known which ROIs are left out.

    Raises:
        SourceError: No training ROI has an object.
    """
    pairs = list(zip((plan.splits[roi.patient] for roi in plan.rois), folders, strict=True))
    training = [folder for split, folder in pairs if split == "train"]
    if training and not any(folder.source.objects for folder in training):
        check = "check --classes, --min-area and --min-tissue"
        if plan.config.sequences:
            check = "check --classes and --min-area; if 255 is an object, give --ignore none"
        raise SourceError(
            training[0].source.mask or training[0].source.image,
            f"no training ROI contains a selected class ({len(training)} checked, this is the first)",
            f"{check}, or divide the patients by --split-file",
        )
    held = {split for split, folder in pairs if folder.source.objects}
    for split in SPLITS:
        if held and split not in held:
            logger.warning("the split %s has no tile; --split-file or --split-fractions can change that", split)


def _publish(work: Path, location: str, *, overwrite: bool) -> None:
    """Move the finished store from the working folder to its destination.

    Raises:
        StoreError: Meanwhile something was put there that must not be replaced.
    """
    if occupied(location):
        check_replaceable(location)
        if not overwrite:
            what = "was put there by another build while this one was running"
            raise StoreError(location, what, "choose another --out, or give --overwrite; finished work is kept")
    if is_remote(location):
        publish_remote(work / STORE_DIR, location, work / "publish" / "uploaded.json")
    else:
        publish_local(work / STORE_DIR, Path(location), work / "replaced")


def _unlock(location: str, work: Path) -> None:
    if is_remote(location):
        remove_lock(location, build_token(work))
