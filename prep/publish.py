"""Put a finished store where it belongs: by one rename in a file system, object by object in an object store.

From another file system it is copied beside its place first, so that there, too, it appears at once.

An object store cannot rename. There the root's `zarr.json`, which holds the completion record, goes last, and a lock
object, created under the condition that it is absent, keeps a second build out.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prep.checksums import CHECKSUM_FILES, sha256_of
from prep.workspace import (
    REPLACED_RECORD,
    is_there,
    open_workspace,
    remove_left_over,
    restore_replaced,
    write_atomically,
)
from schemas.errors import StoreError, UnreachableError
from schemas.layout import ATTRIBUTES_KEY, array_specs
from schemas.location import RETRY_S, is_remote, object_store, remote_errors
from schemas.store import Store

if TYPE_CHECKING:
    from obstore.store import ObjectStore

ROOT_FILE = "zarr.json"
LOCK_OBJECT = ".building"
UPLOADS = 16

RECORD_EVERY_S = 2
"""After a kill, what went up since the last record goes up again."""

_ARRAYS = (*(spec.path for spec in array_specs(8, "uint8", 1, 1)), "checksums/[a-z0-9_]+")
_ARRAY_FILE = re.compile(rf"({'|'.join(_ARRAYS)})/(zarr\.json|c(/\d+)*)")
"""What a build writes into the folder of an array. Others may have files there: raw images are in `images/`, too."""


def publish_local(store_dir: Path, destination: Path, replaced: Path) -> None:
    """Move a finished store into place; an earlier one is moved to `replaced`, or removed if that is far away."""
    # A working folder elsewhere has not made this one.
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        _exchange(store_dir, destination, replaced)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with open_workspace(_beside(destination), _copy_plan(destination), start_again=False) as beside:
            shutil.rmtree(beside / "store", ignore_errors=True)
            _exchange(shutil.copytree(store_dir, beside / "store"), destination, beside / "replaced")


def recover(location: str, work: Path) -> None:
    """Undo what a killed build was about to do at a place: the replaced store is put back, a copy beside it removed."""
    restore_replaced(work)
    if is_remote(location):
        return
    beside = _beside(Path(location))
    restore_replaced(beside)
    # The record stays where something else is in the place of the replaced store.
    if not (beside / REPLACED_RECORD).exists():
        remove_left_over(beside, _copy_plan(Path(location)), lambda _: None)


def _beside(destination: Path) -> Path:
    """The folder through which a store comes from another file system, a working folder of its own."""
    return destination.with_name(f"{destination.name}.arriving")


def _copy_plan(destination: Path) -> dict[str, str]:
    return {"arrives_at": destination.name}


def _exchange(store_dir: Path, destination: Path, replaced: Path) -> None:
    """Rename a store into place and what was there out of it; where one of the two fails, nothing has changed.

    A kill in between leaves the earlier store to `recover`.
    """
    earlier = destination.exists()
    record = replaced.with_name(REPLACED_RECORD)
    if earlier:
        # What a run left here that was killed once its store was in place.
        shutil.rmtree(replaced, ignore_errors=True)
        write_atomically(record, json.dumps(str(destination.absolute())))
        destination.rename(replaced)
    try:
        store_dir.rename(destination)
    except OSError:
        if earlier:
            replaced.rename(destination)
        raise
    record.unlink(missing_ok=True)


def linked_place(location: str) -> str:
    """Where a link at a store's place leads, so that the link stays; a place without a link is itself.

    Raises:
        StoreError: It leads in a circle.
    """
    if is_remote(location) or not Path(location).is_symlink():
        return location
    place = os.path.realpath(location)
    if Path(place).is_symlink():
        raise StoreError(location, "is a link that leads nowhere", "remove it, or choose another --out")
    return place


def occupied(location: str) -> bool:
    """Whether something is where a store is to be; an empty folder is nothing, and neither is an unfinished upload.

    Raises:
        StoreError: The object store does not answer.
    """
    if not is_remote(location):
        return is_there(Path(location))
    import obstore

    with remote_errors(location):
        try:
            # An upload writes it last, and takes that of an earlier store away first.
            obstore.head(object_store(location), ROOT_FILE)
        except FileNotFoundError:
            return False
    return True


def check_replaceable(location: str) -> None:
    """Make sure that all that is at a place was written by a build, since it is about to be replaced.

    A store need not be readable for that: a damaged manifest or one of another version is what a build mends.

    Raises:
        StoreError: It is no store, does not say what a build wrote, or holds a file that none wrote.
    """
    try:
        written = {ROOT_FILE, *_written(Store(location))}
    except UnreachableError:
        raise
    except StoreError as error:
        raise StoreError(
            location,
            f"is in the way and is not known to be a build's work ({error.args[1]})",
            "move it away, or choose another --out",
        ) from error
    if is_remote(location):
        # An upload removes nothing but what is named as the files of a store's arrays are.
        return
    root = Path(location)
    for path in sorted(root.rglob("*")):
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(root).as_posix() not in written:
            raise StoreError(location, f"holds {path.relative_to(root)}, which no build wrote", "move it away")


@contextmanager
def remote_lock(destination: str, token: str) -> Generator[None]:
    """Hold the lock object of a destination; after a kill the same token takes it again.

    Raises:
        StoreError: Another build holds it.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError

    store = object_store(destination)
    try:
        obstore.put(store, LOCK_OBJECT, token.encode(), mode="create")
    except AlreadyExistsError as error:
        if _lock_token(store) != token.encode():
            raise StoreError(
                destination, "is in use by another build", f"wait for it; if none runs, delete {LOCK_OBJECT} there"
            ) from error
    try:
        yield
    finally:
        _delete(store, LOCK_OBJECT)


def remove_lock(destination: str, token: str) -> None:
    """Remove the lock object that a killed build left, if it holds this token."""
    store = object_store(destination)
    with suppress(FileNotFoundError):
        if _lock_token(store) == token.encode():
            _delete(store, LOCK_OBJECT)


def _delete(store: ObjectStore, name: str) -> None:
    """Delete an object; repeated like every other request, which obstore leaves out for what it sends by POST."""
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
        store_dir: The store.
        destination: Where to.
        record: Where the tags that the object store gave the uploaded files are kept, as JSON; a repeated upload of
            the same store skips those that have it still.
    """
    import obstore

    record.parent.mkdir(exist_ok=True)
    remote = object_store(destination)
    if occupied(destination):
        # An earlier store is unreadable before its files are replaced.
        _delete(remote, ROOT_FILE)
    # It holds the digest of all other files: one of another build may have the same names.
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
    # What an earlier store leaves is known by its names alone: a run that was killed remembers nothing.
    listed = [entry["path"] for page in obstore.list(remote) for entry in page]
    for name in set(listed).difference(names):
        if _ARRAY_FILE.fullmatch(name):
            _delete(remote, name)
    upload(ROOT_FILE)


@contextmanager
def _kept_record(record: Path, root_sha256: str, tags: dict[str, str]) -> Generator[Callable[[str, str | None], None]]:
    """Write a record of uploads now and then, for it names all files, and at the end; yields what adds a tag to it."""

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
    """Tags of uploaded files of a store; none where a machine that lost its power left half: all go up again."""
    try:
        read = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(read, dict) or cast("dict[str, object]", read).get("root_sha256") != root_sha256:
        return {}
    return cast("dict[str, dict[str, str]]", read)["tags"]


def _written(store: Store) -> set[str]:
    """Names of the files of a store, its root's metadata aside.

    Raises:
        StoreError: It is no store, or its list of files cannot be read.
    """
    if ATTRIBUTES_KEY not in store.group.attrs:
        raise StoreError(store.path, "is not a store", "choose another place")
    return {*CHECKSUM_FILES, *(str(key) for key in store.column("checksums/key"))}
