"""Verify a store: hash every file again, and derive every array again from the labels.

Axes: O objects of a tile, K points. Coordinates are x, y.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from prep.config import BuildConfig
from prep.derive.roi import merger
from prep.files import CHECKSUM_FILES, WrittenFile
from schemas.errors import BcssError, UnreachableError, unreadable
from schemas.layout import PIXEL_ARRAYS, array_specs
from schemas.manifest import fingerprint, manifest_digest
from schemas.prompt_kinds import PROMPT_SOURCES, PointLabel
from schemas.record import Record
from schemas.store.location import is_remote, object_store, remote_errors
from schemas.store.shards import rows_per_file
from schemas.store.store import Store

_READERS = 8


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a store.

    Attributes:
        where: The file or tile.
        what: What is wrong.
    """

    where: str
    what: str


def verify_store(store: Store, on_progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Check files, then the manifest, then tiles.

    Segments, areas, boxes and ignored pixels are derived again from the labels; of prompts it is seen that every point
    is on its side. Not seen is whether a ROI of another patient or place is named: a tile does not tell.

    Args:
        store: The store.
        on_progress: Told how many files and tiles of how many are checked.

    Returns:
        All problems; none for a whole store.

    Raises:
        UnreachableError: A device or a server fails, so that nothing can be said of the store.
    """
    # Every file's digest is compared here, and what is in a file of another length is worth knowing.
    store = Store(store.path, check_files=False)
    try:
        files = _written_files(store)
    except UnreachableError:
        raise
    except BcssError as error:
        return [Problem("checksums", f"cannot be read ({error})")]
    if files is None:
        return [Problem("checksums", "are not one for each file")]
    total = len(files) + len(store)

    def tell(done: int) -> None:
        if on_progress:
            on_progress(done, total)

    problems = [*_wrong_files(store, files, tell), *_stray_files(store, files)]
    unreadable_columns = list(_unreadable_columns(store))
    if unreadable_columns:
        # Every tile would repeat it.
        return problems + unreadable_columns
    try:
        config = BuildConfig.model_validate(store.manifest.config)
    except (BcssError, ValidationError):
        return [*problems, Problem("zarr.json", "holds settings that no build has")]
    problems.extend(_wrong_manifest(store))
    for index in range(len(store)):
        problems.extend(_verify_tile(store, index, config))
        tell(len(files) + index + 1)
    return problems


def _written_files(store: Store) -> list[WrittenFile] | None:
    """What the build wrote, by its own list; None where the list is not one."""
    keys, digests, sizes = (store.column(f"checksums/{name}").tolist() for name in ("key", "sha256", "size_bytes"))
    if len(keys) != len(digests) or len(keys) != len(sizes):
        return None
    return [WrittenFile(*entry) for entry in zip(map(str, keys), map(str, digests), map(int, sizes), strict=True)]


def _wrong_files(store: Store, files: list[WrittenFile], on_file: Callable[[int], None]) -> Iterator[Problem]:
    if fingerprint([file.sha256 for file in files]) != store.manifest.complete.checksums_sha256:
        yield Problem("checksums", "are not those of the completion record")
    with ThreadPoolExecutor(_READERS) as pool:
        found_files = pool.map(partial(_file_digest, store), [file.key for file in files])
        for done, (file, found) in enumerate(zip(files, found_files, strict=True), start=1):
            if found is None:
                yield Problem(file.key, "is missing")
            elif found.sha256 != file.sha256:
                yield Problem(file.key, "has other bytes" + _rows_of(store, file.key))
            elif found.size_bytes != file.size_bytes:
                yield Problem("checksums/size_bytes", f"says {file.size_bytes} bytes for {file.key}")
            on_file(done)


def _wrong_manifest(store: Store) -> Iterator[Problem]:
    manifest = store.manifest
    if manifest_digest(manifest) != manifest.complete.manifest_sha256:
        yield Problem("zarr.json", "holds another manifest than the completion record says")
    if fingerprint(manifest.config) != manifest.config_fingerprint:
        yield Problem("zarr.json", "holds other settings than its fingerprint says")
    splits: dict[str, set[str]] = {}
    for patient, split in zip(store.column("tiles/patient"), store.column("tiles/split"), strict=True):
        splits.setdefault(str(patient), set()).add(str(split))
    for patient, found in splits.items():
        if len(found) > 1:
            yield Problem("tiles/split", f"puts patient {patient} into {' and '.join(sorted(found))}")


def _file_digest(store: Store, key: str) -> WrittenFile | None:
    """Hash a file of the store; None where there is none."""
    if is_remote(store.path):
        import obstore

        with remote_errors(store.path):
            try:
                data = memoryview(obstore.get(object_store(store.path), key).bytes())
            except FileNotFoundError:
                return None
        return WrittenFile(key, hashlib.sha256(data).hexdigest(), len(data))
    path = Path(store.path) / key
    try:
        if path.exists() and not path.is_file():
            # A pipe would be waited for, and a device has no end.
            return None
        with path.open("rb") as file:
            return WrittenFile(key, hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(str(path), error) from error


def _rows_of(store: Store, key: str) -> str:
    """Which rows a shard holds, for the message."""
    name, _, place = key.partition("/c/")
    if name not in PIXEL_ARRAYS:
        return ""
    array = store.array(name)
    rows = rows_per_file(array)
    first = int(place.split("/")[0]) * rows
    axis = "object" if name == "segments" else "tile"
    return f" ({axis}s {first} to {min(first + rows, int(array.shape[0])) - 1})"


def _stray_files(store: Store, files: list[WrittenFile]) -> list[Problem]:
    if is_remote(store.path):
        # Others may have objects under the same prefix.
        return []
    known = {"zarr.json", *CHECKSUM_FILES, *(file.key for file in files)}
    root = Path(store.path)
    found = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())
    return [Problem(key, "was written by no build") for key in found if key not in known]


def _unreadable_columns(store: Store) -> Iterator[Problem]:
    # The type of labels, which are no column, does not matter.
    for spec in array_specs(store.manifest.tile_size_px, "uint8", store.manifest.point_counts):
        if spec.path not in PIXEL_ARRAYS:
            try:
                store.column(spec.path)
            except UnreachableError:
                raise
            except BcssError as error:
                yield Problem(spec.path, f"cannot be read ({error})")


def _verify_tile(store: Store, index: int, config: BuildConfig) -> Iterator[Problem]:
    where = f"tile {index}"
    try:
        record = store[index]
    except UnreachableError:
        raise
    except BcssError as error:
        yield Problem(where, f"cannot be read ({error})")
        return
    where = f"tile {index} ({record.frame_id} at {record.origin_xy[0]}, {record.origin_xy[1]})"
    inside = _inside(record)
    codes = merger(config, record.labels)(record.labels)
    if not np.array_equal(record.ignore, np.isin(codes, config.ignore) | ~inside):
        yield Problem(where, "its ignored pixels are not those of its labels")
    if config.layout == "resize" and not inside.all():
        yield Problem(where, "its scale does not make one tile of its ROI")
    wanted = {info.code for info in store.manifest.classes}
    yield from (Problem(where, what) for what in _wrong_segments(store, record, codes, inside, config, wanted))
    yield from (Problem(where, what) for what in _wrong_prompts(store, record))


def _inside(record: Record) -> NDArray[np.bool_]:
    """Which pixels of a tile lie in the ROI."""
    size = record.labels.shape[0]
    ends = [
        round(side * scale) - round(origin * scale)
        for side, scale, origin in zip(record.roi_size_xy, record.scale_xy, record.origin_xy, strict=True)
    ]
    y, x = np.ogrid[:size, :size]
    return np.asarray((x < ends[0]) & (y < ends[1]), bool)


def _wrong_segments(
    store: Store,
    record: Record,
    codes: NDArray[np.uint8 | np.uint16],
    inside: NDArray[np.bool_],
    config: BuildConfig,
    wanted: set[int],
) -> Iterator[str]:
    expected = _Expected(codes, inside, config, wanted)
    if len(expected) != len(record.segments):
        yield f"it has {len(record.segments)} objects, and its labels give {len(expected)}"
        return
    rows = store.tile(record.index).object_rows
    areas, at_edge = (store.column(f"objects/{name}")[rows] for name in ("area_px", "touches_edge"))
    last = record.labels.shape[0] - 1
    for row, (segment, (class_id, mask)) in enumerate(zip(record.segments, expected, strict=True)):
        name = f"object {record.object_ids[row]}"
        if record.class_ids[row] != class_id or not np.array_equal(segment, mask):
            yield f"{name} is not the segment that its labels give"
            continue
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max(), ys.max()]
        if areas[row] != len(xs):
            yield f"{name} has area {areas[row]}, and its segment {len(xs)}"
        if record.boxes_xyxy[row].tolist() != box:
            yield f"{name} has another box than its segment"
        if at_edge[row] != (0 in box[:2] or last in box[2:]):
            yield f"{name} is said {'to touch' if at_edge[row] else 'not to touch'} the tile's edge"


class _Expected:
    """Class and mask of every object that labels give, derived by the shortest way rather than by the builder's.

    Masks are made when they are asked for: a tile may have thousands, each of its size.
    """

    def __init__(
        self, codes: NDArray[np.uint8 | np.uint16], inside: NDArray[np.bool_], config: BuildConfig, wanted: set[int]
    ) -> None:
        self._numbered: dict[int, NDArray[Any]] = {}
        self._objects: list[tuple[int, int]] = []
        for code in sorted(wanted):
            mask = (np.equal(codes, code) & inside).view(np.uint8)
            numbers = mask if config.objects == "label" else cv2.connectedComponents(mask, connectivity=8)[1]
            self._numbered[code] = np.asarray(numbers)
            sizes = np.bincount(self._numbered[code].ravel())
            kept = np.flatnonzero(sizes >= max(config.min_area_px, 1))
            self._objects.extend((code, int(number)) for number in kept if number)

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        return ((code, np.equal(self._numbered[code], number)) for code, number in self._objects)


def _wrong_prompts(store: Store, record: Record) -> Iterator[str]:
    segments = dict(zip(record.object_ids.tolist(), record.segments, strict=True))
    for kind in PROMPT_SOURCES:
        prompts = store.prompts(record.index, kind, negatives=store.manifest.negative_points > 0)
        for object_id, prompt in prompts.items():
            coords, labels = prompt["point_coords"].astype(int), prompt["point_labels"]
            if not (labels > PointLabel.NEGATIVE).any():
                yield f"object {object_id} has no point for the prompt {kind}"
            else:
                on = segments[object_id][coords[:, 1], coords[:, 0]]
                ignored = record.ignore[coords[:, 1], coords[:, 0]]
                if not on[labels == PointLabel.POSITIVE].all():
                    yield f"object {object_id} has a positive point off its segment"
                if (on | ignored)[labels == PointLabel.NEGATIVE].any():
                    yield f"object {object_id} has a negative point on its segment or on an ignored pixel"
