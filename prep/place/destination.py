"""Look at what the destination of a build holds, and decide whether the build may replace it."""

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
    """Follow a symbolic link at the destination, so that the link stays when the store is replaced.

    Returns:
        The target of the link; the location itself if it is not a link.

    Raises:
        StoreError: The link is part of a loop of links.
    """
    if is_remote(location) or not Path(location).is_symlink():
        return location
    place = os.path.realpath(location)
    if Path(place).is_symlink():
        raise StoreError(location, "is part of a loop of symbolic links", "remove it, or choose another --out")
    return place


def occupied(location: str) -> bool:
    """Whether the destination holds something; an empty folder or an unfinished upload counts as nothing.

    Raises:
        UnreachableError: The object store does not answer.
    """
    if not is_remote(location):
        return is_there(Path(location))
    import obstore

    with remote_errors(location):
        try:
            # An upload first removes this file of an earlier store, and writes its own as the last file.
            obstore.head(object_store(location), ROOT_FILE)
        except FileNotFoundError:
            return False
    return True


def check_replaceable(location: str) -> None:
    """Check that a build wrote everything at the destination, since it is about to be replaced.

    The store may be unreadable: a damaged manifest or another version is a reason to build it again.

    Raises:
        StoreError: It is not a store, its list of files cannot be read, or it contains a file that is not in the list.
    """
    try:
        written = {ROOT_FILE, *_written(Store(location))}
    except UnreachableError:
        raise
    except StoreError as error:
        raise StoreError(
            location,
            f"is in the way and cannot be recognized as a store ({error.args[1]})",
            "move it away, or choose another --out",
        ) from error
    if is_remote(location):
        # An upload removes only files with the names of a store's files.
        return
    root = Path(location)
    for path in sorted(root.rglob("*")):
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(root).as_posix() not in written:
            raise StoreError(location, f"holds {path.relative_to(root)}, which is not part of a store", "move it away")


def _written(store: Store) -> set[str]:
    """Paths of the files of a store, except the root's `zarr.json`.

    Raises:
        StoreError: It is not a store, or its list of files cannot be read.
    """
    if ATTRIBUTES_KEY not in store.group.attrs:
        raise StoreError(store.path, "is not a store", "choose another place")
    return {*CHECKSUM_FILES, *(str(key) for key in store.column("checksums/key"))}
