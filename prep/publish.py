"""Put a finished store where it belongs: by one rename in a file system, object by object in an object store.

An object store cannot rename. There the root's `zarr.json`, which holds the completion record, goes last, and a lock
object, created under the condition that it is absent, keeps a second build out.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from prep.checksums import CHECKSUM_FILES
from schemas.errors import StoreError
from schemas.location import object_store
from schemas.store import Store, open_store

ROOT_FILE = "zarr.json"
LOCK_OBJECT = ".building"
UPLOADS = 16


def publish_local(store_dir: Path, destination: Path, replaced: Path) -> None:
    """Rename a finished store into place; an earlier one is moved to `replaced`."""
    if destination.exists():
        destination.rename(replaced)
    store_dir.rename(destination)


def check_replaceable(destination: Path) -> None:
    """Make sure that a folder is a store and holds nothing else, since it is about to be replaced.

    Raises:
        StoreError: It is no store, or holds a file that no build wrote.
    """
    written = {ROOT_FILE, *_written(open_store(destination))}
    for path in sorted(destination.rglob("*")):
        if path.is_file() and path.relative_to(destination).as_posix() not in written:
            raise StoreError(
                destination, f"holds {path.relative_to(destination)}, which no build wrote", "move it away"
            )


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
        if bytes(obstore.get(store, LOCK_OBJECT).bytes()).decode() != token:
            raise StoreError(
                destination, "is in use by another build", f"wait for it; if none runs, delete {LOCK_OBJECT} there"
            ) from error
    try:
        yield
    finally:
        obstore.delete(store, LOCK_OBJECT)


def publish_remote(store_dir: Path, destination: str, record: Path) -> None:
    """Upload a finished store.

    Args:
        store_dir: The store.
        destination: Where to.
        record: Names of the uploaded files, a line each; a repeated upload skips them.
    """
    import obstore

    remote = object_store(destination)
    stale = _remove_completion(destination)
    done = set(json.loads(record.read_text(encoding="utf-8"))) if record.exists() else set[str]()
    names = [path.relative_to(store_dir).as_posix() for path in sorted(store_dir.rglob("*")) if path.is_file()]
    waiting = [name for name in names if name != ROOT_FILE and name not in done]

    def upload(name: str) -> str:
        obstore.put(remote, name, store_dir / name)
        return name

    with ThreadPoolExecutor(UPLOADS) as pool:
        for name in pool.map(upload, waiting):
            done.add(name)
            record.write_text(json.dumps(sorted(done)), encoding="utf-8")
    for name in sorted(stale - set(names)):
        obstore.delete(remote, name)
    upload(ROOT_FILE)


def _remove_completion(destination: str) -> set[str]:
    """Make an earlier store unreadable before its files are replaced; return their names."""
    import obstore

    try:
        earlier = _written(open_store(destination))
    except StoreError:
        return set()
    obstore.delete(object_store(destination), ROOT_FILE)
    return earlier


def _written(store: Store) -> set[str]:
    """Names of the files of a store, its root's metadata aside."""
    return {*CHECKSUM_FILES, *(str(key) for key in store.column("checksums/key"))}
