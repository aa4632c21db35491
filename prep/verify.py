"""Verify a store: hash every file again, then derive the arrays of every tile again from its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from prep.config import BuildConfig
from prep.files import CHECKSUM_FILES, WrittenFile
from prep.verify_tile import wrong_in_tile
from schemas.errors import BcssError, UnreachableError, unreadable
from schemas.layout import PIXEL_ARRAYS, array_specs
from schemas.manifest import fingerprint, manifest_digest
from schemas.store.location import is_remote, object_store, remote_errors
from schemas.store.shards import rows_per_file
from schemas.store.store import Store

_READERS = 8
"""Files that are hashed at the same time."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a store.

    Attributes:
        where: The file or tile.
        what: What is wrong.
    """

    where: str
    what: str


def verify_store(store: Store, on_progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Check the files, then the manifest, then the tiles.

    Segments, areas, boxes and ignored pixels are derived again from the labels. A positive point must lie on its
    segment, and a negative point outside it. A wrong patient or place of a tile cannot be found, since the pixels do
    not show it.

    Args:
        store: The store.
        on_progress: Called with the number of checked files and tiles and with their total number.

    Returns:
        All problems; an empty list for a store without any.

    Raises:
        UnreachableError: A device or a server failed, so the state of the store is unknown.
    """
    # Read files of the wrong length, too, because every digest is compared here and all damage should be reported.
    store = Store(store.path, check_files=False)
    try:
        files = _written_files(store)
    except UnreachableError:
        raise
    except BcssError as error:
        return [Problem("checksums", f"cannot be read ({error})")]
    if files is None:
        return [Problem("checksums", "has columns of different lengths")]
    total = len(files) + len(store)

    def report(done: int) -> None:
        if on_progress:
            on_progress(done, total)

    problems = [*_wrong_files(store, files, report), *_stray_files(store, files)]
    unreadable_columns = list(_unreadable_columns(store))
    if unreadable_columns:
        # Every tile would report the same problem again.
        return problems + unreadable_columns
    try:
        config = BuildConfig.model_validate(store.manifest.config)
    except (BcssError, ValidationError):
        return [*problems, Problem("zarr.json", "holds settings that no build has")]
    problems += [*_wrong_manifest(store), *_wrong_instances(store), *_wrong_frames(store)]
    for index in range(len(store)):
        problems.extend(_wrong_tile(store, index, config))
        report(len(files) + index + 1)
    return problems


def _written_files(store: Store) -> list[WrittenFile] | None:
    """Return the files that the build wrote, from the store's own list; None if its columns differ in length."""
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
        yield Problem("zarr.json", "holds a manifest that differs from its completion record")
    if fingerprint(manifest.config) != manifest.config_fingerprint:
        yield Problem("zarr.json", "holds settings that do not match its fingerprint")
    splits: dict[str, set[str]] = {}
    for patient, split in zip(store.column("tiles/patient"), store.column("tiles/split"), strict=True):
        splits.setdefault(str(patient), set()).add(str(split))
    for patient, found in splits.items():
        if len(found) > 1:
            yield Problem("tiles/split", f"puts patient {patient} into {' and '.join(sorted(found))}")


def _wrong_instances(store: Store) -> Iterator[Problem]:
    """Check that an instance has the same class, source id and number in all tiles of its ROI or sequence."""
    if store.manifest.object_kind != "instance":
        return
    column = store.column
    names = np.array(store.sequences)[column("tiles/sequence")] if store.sequences else column("tiles/frame_id")
    rois = names[column("objects/tile_index")].tolist()
    numbers, components = column("objects/object_id").tolist(), column("objects/roi_component").tolist()
    if numbers != components:
        yield Problem("objects/roi_component", "holds instance numbers that differ from objects/object_id")
    for name in ("class_id", "source_id"):
        first: dict[tuple[str, int], int] = {}
        for roi, number, value in zip(rois, numbers, column(f"objects/{name}").tolist(), strict=True):
            if first.setdefault((roi, number), value) != value:
                yield Problem(
                    f"objects/{name}", f"gives the instance {number} of {roi} both {first[roi, number]} and {value}"
                )


def _wrong_frames(store: Store) -> Iterator[Problem]:
    """Check that the columns place each tile in the sequence and at the number that the manifest gives its frame."""
    if not store.sequences:
        return
    column = store.column
    for index, (frame_id, sequence, number) in enumerate(
        zip(*(column(f"tiles/{name}").tolist() for name in ("frame_id", "sequence", "frame_number")), strict=True)
    ):
        source = store.source(frame_id)
        if (source.sequence, source.frame_number) != (store.sequences[sequence], number):
            what = f"is frame {number} of {store.sequences[sequence]}, but the manifest has {frame_id} elsewhere"
            yield Problem(f"tile {index}", what)


def _file_digest(store: Store, key: str) -> WrittenFile | None:
    """Hash a file of the store; None if there is no regular file."""
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
            # Reading a pipe would wait forever, and a device has no end.
            return None
        with path.open("rb") as file:
            return WrittenFile(key, hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(str(path), error) from error


def _rows_of(store: Store, key: str) -> str:
    """Say which tiles or objects a shard holds, for the message; empty for other files."""
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
        # Other programs may have objects under the same prefix.
        return []
    known = {"zarr.json", *CHECKSUM_FILES, *(file.key for file in files)}
    root = Path(store.path)
    found = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())
    return [Problem(key, "was not written by the build") for key in found if key not in known]


def _unreadable_columns(store: Store) -> Iterator[Problem]:
    manifest = store.manifest
    # The type of the labels does not matter here: they are not a column.
    for spec in array_specs(
        manifest.tile_size_px,
        "uint8",
        manifest.point_counts,
        manifest.object_kind,
        has_sequences=bool(manifest.sequences),
        point_sets=store.point_sets,
    ):
        if spec.path not in PIXEL_ARRAYS:
            try:
                store.column(spec.path)
            except UnreachableError:
                raise
            except BcssError as error:
                yield Problem(spec.path, f"cannot be read ({error})")


def _wrong_tile(store: Store, index: int, config: BuildConfig) -> Iterator[Problem]:
    try:
        tile = store.tile(index)
        frame_id, (x, y) = store.column("tiles/frame_id")[index], store.column("tiles/origin_xy")[index].tolist()
        where = f"tile {index} ({frame_id} at {x}, {y})"
        yield from [Problem(where, what) for what in wrong_in_tile(tile, config)]
    except UnreachableError:
        raise
    except BcssError as error:
        yield Problem(f"tile {index}", f"cannot be read ({error})")
