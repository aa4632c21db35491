"""Build a store: find the ROIs, prepare each, join shards, write columns, publish.

Everything is written beside the destination and appears there at once, with its completion record. A build that was
killed leaves its working folder, and the same command goes on from there.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prep.config import BuildConfig
from prep.derive.roi import size_mismatch
from prep.files import sha256_of
from prep.parallel import task_map
from prep.place.destination import check_replaceable, linked_place, occupied
from prep.place.local_store import publish_local, recover
from prep.place.object_store import publish_remote, remote_lock, remove_lock
from prep.place.workspace import TOKEN_FILE, open_workspace, remove_left_over
from prep.source.decode import image_header
from prep.source.discover import RoiSource, find_pairs
from prep.source.split import bcss_split
from prep.write.assemble import STORE_DIR, StagedFolder, assemble
from prep.write.checksums import check_sizes
from prep.write.roi_folder import StagedRoi, StageTask, stage_roi
from schemas.command.stage_timer import timed
from schemas.errors import ConfigError, SourceError, StoreError
from schemas.layout import ArraySpec, array_specs
from schemas.manifest import SPLITS, Manifest, Split, fingerprint
from schemas.store.location import is_remote, normal_location, remote_errors
from schemas.store.store import Store, open_store

logger = logging.getLogger(__name__)

Splitter = Callable[[list[RoiSource]], dict[str, Split]]


@dataclass(frozen=True)
class BuildProgress:
    """Told after each ROI.

    Attributes:
        done: ROIs prepared so far.
        total: All ROIs.
        tiles: Tiles so far.
        source_bytes: Bytes of the ROIs so far, decoded.
    """

    done: int
    total: int
    tiles: int
    source_bytes: int


@dataclass(frozen=True)
class BuildOptions:
    """How a build runs; none of it changes what is built.

    Attributes:
        workers: Processes.
        dask_address: Scheduler to run on instead, or `local`.
        overwrite: Whether an existing store may be replaced, once the new one is whole, and work in the way of this
            build, begun otherwise or from sources that have changed since, is thrown away.
        work_dir: Working folder; beside the destination unless given, or in the current folder for an object store.
        on_progress: Called after each ROI.
    """

    workers: int = 1
    dask_address: str | None = None
    overwrite: bool = False
    work_dir: Path | None = None
    on_progress: Callable[[BuildProgress], None] | None = None


def build_store(
    source_dir: Path,
    destination: str | Path,
    config: BuildConfig,
    options: BuildOptions = BuildOptions(),
    splitter: Splitter = bcss_split,
    patients: Mapping[str, str] | None = None,
) -> Manifest:
    """Build a store from a folder of images and masks.

    Args:
        source_dir: Holds the folders of images and masks.
        destination: Path or URL of the store to be. A store that was built from the same sources with the same
            configuration is left as it is.
        config: What to build.
        options: How to run.
        splitter: Divides patients into splits.
        patients: The patient of each ROI by its stem, where names do not say it.

    Raises:
        SourceError: A source file cannot be used, or none of train holds a wanted class.
        StoreError: The destination holds something else, or a file cannot be read or written.
        ConfigError: The configuration contradicts the sources, or the destination has no name.
    """
    location = linked_place(normal_location(destination))
    # Workers may have another current folder.
    source_dir = source_dir.absolute()
    work_dir = _work_dir(location, options)
    rois = find_pairs(source_dir, config.images, config.masks, patients)
    specs = tuple(array_specs(config.size_px, _check_headers(rois), config.point_counts))
    splits = splitter(rois)
    plan = _plan(source_dir, config, rois, splits)
    with _failures_named(location), remote_errors(location):
        recover(location, work_dir)
        current = None if options.overwrite else _current(location, config, rois, splits)
        if current is not None:
            logger.info("%s is up to date", location)
            remove_left_over(work_dir, plan, lambda work: _unlock(location, work))
            return current.manifest
        if options.overwrite and occupied(location):
            check_replaceable(location)
        with open_workspace(work_dir, plan, start_again=options.overwrite) as work:
            wanted = BuildInputs(rois, splits, specs, fingerprint(plan))
            return _build_in(work, location, source_dir, config, options, wanted)


@contextmanager
def _failures_named(location: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            error.filename or location,
            f"cannot be read or written ({reason})",
            "mend that, and the same command goes on from here",
        ) from error


@dataclass(frozen=True)
class BuildInputs:
    """What a build is made from, found before the first ROI is decoded.

    Attributes:
        rois: The pairs of image and mask.
        splits: The split of each patient.
        specs: The arrays of the store.
        digest: SHA-256 of the plan, which names the folders of prepared ROIs.
    """

    rois: list[RoiSource]
    splits: dict[str, Split]
    specs: tuple[ArraySpec, ...] = field(repr=False)
    digest: str


def _build_in(
    work: Path, location: str, source_dir: Path, config: BuildConfig, options: BuildOptions, plan: BuildInputs
) -> Manifest:
    rois_dir = work / "rois"
    rois_dir.mkdir(exist_ok=True)
    tasks = [
        StageTask(
            roi,
            plan.splits[roi.patient],
            source_dir,
            # A worker of a cluster may outlive a build of another plan: it is not to leave its ROI here for ours.
            rois_dir / f"{plan.digest[:8]}-{number:06d}",
            config,
            plan.specs,
            may_change=options.overwrite,
        )
        for number, roi in enumerate(plan.rois)
    ]
    with ExitStack() as stack:
        if is_remote(location):
            stack.enter_context(remote_lock(location, _token(work)))
        run = stack.enter_context(task_map(min(options.workers, len(tasks)), options.dask_address))
        prepared = _reported(run(stage_roi, tasks), len(tasks), options.on_progress)
        staged = [StagedFolder(task.directory, roi) for task, roi in zip(tasks, prepared, strict=True)]
        _check_splits(plan, staged)
        manifest = assemble(work, staged, config, plan.specs, run)
        with timed("publish"):
            if occupied(location):
                # Again, for what was put there in the meantime.
                check_replaceable(location)
            if is_remote(location):
                publish_remote(work / STORE_DIR, location, work / "publish" / "uploaded.json")
            else:
                publish_local(work / STORE_DIR, Path(location), work / "replaced")
    return manifest


def _check_splits(plan: BuildInputs, staged: list[StagedFolder]) -> None:
    """See that something is left of train, now that it is known which ROIs are kept out, and say it of the others."""
    pairs = zip(plan.rois, staged, strict=True)
    of_train = [item.roi for roi, item in pairs if plan.splits[roi.patient] == "train"]
    if of_train and not any(roi.source.objects for roi in of_train):
        raise SourceError(
            of_train[0].source.mask,
            f"and {len(of_train) - 1} more ROIs are all of train, and none has a wanted object",
            "check --classes, --min-area and --min-tissue, or divide the patients by --split-file",
        )
    held = {plan.splits[roi.patient] for roi, item in zip(plan.rois, staged, strict=True) if item.roi.source.objects}
    for split in SPLITS:
        if held and split not in held:
            logger.warning("no tile is of the split %s; --split-file and --split-fractions divide otherwise", split)


def _current(location: str, config: BuildConfig, rois: list[RoiSource], splits: dict[str, Split]) -> Store | None:
    """The store at a location, None where nothing is.

    Raises:
        StoreError: Something else is there, or a store that cannot be read or is not what would be built.
    """
    if not occupied(location):
        return None
    try:
        store = open_store(location)
    except StoreError as error:
        check_replaceable(location)
        _, what, _ = error.args
        raise StoreError(location, what, "choose another --out, or give --overwrite") from error
    if not _is_current(store, config, rois, splits):
        raise StoreError(
            location, "was built from other sources or settings", "choose another --out, or give --overwrite"
        )
    return store


def _is_current(store: Store, config: BuildConfig, rois: list[RoiSource], splits: dict[str, Split]) -> bool:
    """Whether a store is what would be built again.

    Raises:
        StoreError: It is, but for a file that is missing or cut.
    """
    manifest = store.manifest
    if manifest.config_fingerprint != fingerprint(config.model_dump(mode="json")):
        return False
    built = {source.frame_id: (source.image_sha256, source.mask_sha256) for source in manifest.sources}
    if built.keys() != {roi.frame_id for roi in rois}:
        return False
    check_sizes(store)
    held = dict(zip(store.column("tiles/patient").tolist(), store.column("tiles/split").tolist(), strict=True))
    if any(splits.get(patient) != split for patient, split in held.items()):
        return False
    return all((sha256_of(roi.image_path), sha256_of(roi.mask_path)) == built[roi.frame_id] for roi in rois)


def _plan(source_dir: Path, config: BuildConfig, rois: list[RoiSource], splits: dict[str, Split]) -> dict[str, Any]:
    return {
        "tool_version": version("bcss-sam2"),
        "source": str(source_dir.absolute()),
        "config": config.model_dump(mode="json"),
        "rois": [roi.frame_id for roi in rois],
        "splits": splits,
    }


def _work_dir(location: str, options: BuildOptions) -> Path:
    """Where to work.

    Raises:
        ConfigError: The destination has no name, and so nothing can be put in its place.
    """
    name = location.rsplit("/", 1)[-1] if is_remote(location) else Path(location).name
    if name in ("", ".."):
        raise ConfigError(f"--out {location}", "does not name a store", "give it a name, such as ./bcss.zarr")
    if options.work_dir is not None:
        return options.work_dir.absolute()
    beside = f"{name}.partial"
    return (Path(beside) if is_remote(location) else Path(location).with_name(beside)).absolute()


def _token(work: Path) -> str:
    """What this build's lock object holds, the same after a restart."""
    path = work / TOKEN_FILE
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="ascii")
    return path.read_text(encoding="ascii")


def _unlock(location: str, work: Path) -> None:
    if is_remote(location):
        remove_lock(location, _token(work))


def _check_headers(rois: list[RoiSource]) -> str:
    """Compare the sizes of all pairs before the first is decoded, and return the label dtype that holds all masks."""
    dtype = "uint8"
    for roi in rois:
        image, mask = image_header(roi.image_path), image_header(roi.mask_path)
        if image.size != mask.size:
            raise size_mismatch(roi, image.size, mask.size)
        if mask.mode.startswith("I"):
            dtype = "uint16"
    return dtype


def _reported(
    results: Iterator[StagedRoi], total: int, on_progress: Callable[[BuildProgress], None] | None
) -> Iterator[StagedRoi]:
    tiles = source_bytes = 0
    for done, roi in enumerate(results, start=1):
        if not roi.source.objects:
            why = "holds no wanted object" if roi.source.tiles else "has no tile with --min-tissue"
            logger.warning("%s %s and is kept out", roi.source.mask, why)
        logger.debug("ROI %s: %d tiles, %d objects", roi.source.frame_id, roi.source.tiles, roi.source.objects)
        tiles += roi.source.tiles
        # Three bytes of colour and one of label a pixel.
        source_bytes += roi.source.width_px * roi.source.height_px * 4
        if on_progress:
            on_progress(BuildProgress(done, total, tiles, source_bytes))
        yield roi
