"""What is at the place where a store is to be, and whether a build may replace it."""

from __future__ import annotations

import os
from pathlib import Path

from prep.files import CHECKSUM_FILES, is_there
from schemas.errors import StoreError, UnreachableError
from schemas.layout import ATTRIBUTES_KEY
from schemas.store.location import is_remote, object_store, remote_errors
from schemas.store.store import Store

ROOT_FILE = "zarr.json"


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


def _written(store: Store) -> set[str]:
    """Names of the files of a store, its root's metadata aside.

    Raises:
        StoreError: It is no store, or its list of files cannot be read.
    """
    if ATTRIBUTES_KEY not in store.group.attrs:
        raise StoreError(store.path, "is not a store", "choose another place")
    return {*CHECKSUM_FILES, *(str(key) for key in store.column("checksums/key"))}
