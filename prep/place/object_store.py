"""Upload a finished store to an object store.

An object store cannot rename a folder. So the root's `zarr.json`, which contains the completion record, is uploaded
last: until then, no reader accepts the store. A lock object keeps other builds out; it is created only if none exists.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prep.files import sha256_of, write_atomically
from prep.place.destination import ROOT_FILE, occupied
from schemas.errors import StoreError
from schemas.layout import array_specs
from schemas.prompt_kinds import PointCounts
from schemas.store.location import RETRY_S, object_store

if TYPE_CHECKING:
    from obstore.store import ObjectStore

LOCK_OBJECT = ".building"

UPLOADS = 16
"""Files that are uploaded at the same time."""

RECORD_EVERY_S = 2
"""Seconds between records of uploaded files. After a kill, files uploaded since the last record are uploaded again."""

_SPECS = array_specs(8, "uint8", PointCounts(1, 1), "instance", has_sequences=True)
_ARRAYS = (*(spec.path for spec in _SPECS), "checksums/[a-z0-9_]+")
_ARRAY_FILE = re.compile(rf"({'|'.join(_ARRAYS)})/(zarr\.json|c(/\d+)*)")
"""Paths of the files that a build writes. A bucket may hold other files in the same folders, such as raw `images/`."""


@contextmanager
def remote_lock(destination: str, token: str) -> Generator[None]:
    """Hold the lock object of a destination.

    Args:
        destination: URL of the store.
        token: Identifies the build: if a build was killed, its next run has the same token and gets the lock.

    Raises:
        StoreError: Another build holds the lock.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError

    store = object_store(destination)
    try:
        obstore.put(store, LOCK_OBJECT, token.encode(), mode="create")
    except AlreadyExistsError as error:
        if _lock_token(store) != token.encode():
            raise StoreError(
                destination,
                "is in use by another build",
                f"wait for it; if none is running, delete {LOCK_OBJECT} there",
            ) from error
    try:
        yield
    finally:
        _delete(store, LOCK_OBJECT)


def remove_lock(destination: str, token: str) -> None:
    """Remove the lock object that a killed build left, if it contains this token."""
    store = object_store(destination)
    with suppress(FileNotFoundError):
        if _lock_token(store) == token.encode():
            _delete(store, LOCK_OBJECT)


def _delete(store: ObjectStore, name: str) -> None:
    """Delete an object; a failed request is repeated here, since obstore does not repeat POST requests."""
    import obstore
    from obstore.exceptions import GenericError

    ends = time.monotonic() + RETRY_S
    while True:
        try:
            obstore.delete(store, name)
        except GenericError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.5)
        else:
            return


def _lock_token(store: ObjectStore) -> bytes:
    import obstore

    return bytes(obstore.get(store, LOCK_OBJECT).bytes())


def publish_remote(store_dir: Path, destination: str, record: Path) -> None:
    """Upload a finished store.

    Args:
        store_dir: The finished store.
        destination: URL of the store.
        record: A JSON file with the tag (ETag) that the object store gave each uploaded file. A repeated upload of the
            same store skips the files whose tag is unchanged.
    """
    import obstore

    record.parent.mkdir(exist_ok=True)
    remote = object_store(destination)
    if occupied(destination):
        # From here on, readers refuse the earlier store, so they never read it while its files are replaced.
        _delete(remote, ROOT_FILE)
    # The root's metadata contains a digest of all other files, so it identifies this store.
    root_sha256 = sha256_of(store_dir / ROOT_FILE)
    done = _read_record(record, root_sha256)
    held = {entry["path"]: entry["e_tag"] for page in obstore.list(remote) for entry in page} if done else {}
    done = {name: tag for name, tag in done.items() if tag and held.get(name) == tag}
    names = [path.relative_to(store_dir).as_posix() for path in sorted(store_dir.rglob("*")) if path.is_file()]
    waiting = [name for name in names if name != ROOT_FILE and name not in done]

    def upload(name: str) -> str | None:
        return obstore.put(remote, name, store_dir / name)["e_tag"]

    with _kept_record(record, root_sha256, done) as note, ThreadPoolExecutor(UPLOADS) as pool:
        for name, tag in zip(waiting, pool.map(upload, waiting), strict=True):
            note(name, tag)
    # Files of an earlier store are recognized only by their names, since a killed run leaves no list of them.
    listed = [entry["path"] for page in obstore.list(remote) for entry in page]
    for name in set(listed).difference(names):
        if _ARRAY_FILE.fullmatch(name):
            _delete(remote, name)
    upload(ROOT_FILE)


@contextmanager
def _kept_record(record: Path, root_sha256: str, tags: dict[str, str]) -> Generator[Callable[[str, str | None], None]]:
    """Yield a function that notes an uploaded file; the record is written every few seconds, since it is long."""

    def write() -> float:
        write_atomically(record, json.dumps({"root_sha256": root_sha256, "tags": tags}, sort_keys=True))
        return time.monotonic()

    def note(name: str, tag: str | None) -> None:
        nonlocal written_s
        if tag:
            tags[name] = tag
        if time.monotonic() - written_s >= RECORD_EVERY_S:
            written_s = write()

    written_s = time.monotonic()
    try:
        yield note
    finally:
        write()


def _read_record(record: Path, root_sha256: str) -> dict[str, str]:
    """Return the tags of uploaded files; none if a power cut left half a record, so that all are uploaded again."""
    try:
        read = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(read, dict) or cast("dict[str, object]", read).get("root_sha256") != root_sha256:
        return {}
    return cast("dict[str, dict[str, str]]", read)["tags"]
