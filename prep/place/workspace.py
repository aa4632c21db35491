"""The working folder of a build, beside its destination: locked, bound to one plan, and kept until the build is done.

A killed build leaves its folder, and the next run of the same plan uses the finished parts. A run with another plan is
refused, and a folder that does not belong to a build is never touched.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from prep.changed_settings import changed_settings
from prep.files import is_there, write_atomically
from schemas.errors import StoreError

PLAN_FILE = "bcss-prep-build.json"
"""Marks a working folder; no other program gives a file this name."""

LOCK_FILE = "lock"

WORK_FOLDERS = ("rois", "shards", "store", "publish", "replaced")
"""The folders that a build creates in its working folder; a build that starts again removes these and nothing else."""

KEEP_FILE = "keep"
"""Marks a working folder that existed before the build, so that it is emptied instead of removed."""

TOKEN_FILE = "token"
"""Holds the token that identifies this build in the lock object of an object store."""

REPLACED_RECORD = "replaced.json"
"""Holds the path of the store that is in `replaced`, until the new store is in place."""


@contextmanager
def open_workspace(folder: Path, plan: dict[str, Any], *, start_again: bool) -> Generator[Path]:
    """Lock a working folder for one plan. It is removed on success, and kept on failure if it contains finished work.

    A folder that existed before, empty, is emptied instead of removed: it may be a link or a mount point.

    Args:
        folder: The working folder.
        plan: The plan of the build as JSON values; equal plans give equal stores.
        start_again: Whether to discard the work of another plan, or of a plan that cannot be read. Of the same plan,
            joined shards are discarded, because sources may have changed since; prepared ROIs notice that themselves.

    Yields:
        The folder.

    Raises:
        StoreError: Another build has locked the folder, or the folder belongs to another plan or to no build.
    """
    there = {path.name for path in folder.iterdir()} if folder.exists() else None
    if there is not None and PLAN_FILE not in there and not _is_bare(there):
        raise StoreError(
            folder, "is in the way and does not belong to a build", "move it away, or choose another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if there == set():
        (folder / KEEP_FILE).touch()
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(folder, "is in use by another build", "wait for it, or choose another --out") from error
    try:
        _bind(folder, plan, start_again=start_again)
        yield folder
        _remove(folder)
    except BaseException:
        # Keep finished parts for the next run; a folder without any would only be in the way. Keep a replaced store,
        # too, because it may be the only store left.
        if not any((folder / "rois").glob("*/staged.json")) and not (folder / REPLACED_RECORD).exists():
            with suppress(OSError):
                _remove(folder)
        raise
    finally:
        lock.release()


def remove_left_over(folder: Path, plan: dict[str, Any], before: Callable[[Path], None]) -> None:
    """Remove the working folder of a build that was killed after it had put its store in place.

    A folder that is in use, or that belongs to another plan, is kept.

    Args:
        folder: The working folder; it may be absent.
        plan: The plan of the store.
        before: Called with the folder once it is locked, before it is removed.
    """
    half_removed = _is_half_removed(folder)
    if not half_removed and _begun_plan(folder) != _as_stored(plan):
        return
    with _held(folder) as held:
        if held:
            if not half_removed:
                before(folder)
            _remove(folder)


def restore_replaced(folder: Path) -> None:
    """Put back the store that a killed build had moved away, unless something else has taken its place."""
    with _held(folder) as held:
        place = _replaced_place(folder) if held else None
        if place is not None and not is_there(place) and (folder / "replaced").exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            (folder / "replaced").rename(place)
            (folder / REPLACED_RECORD).unlink()


def build_token(folder: Path) -> str:
    """Return the token that this build's lock object contains; a restarted build has the same token."""
    path = folder / TOKEN_FILE
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="ascii")
    return path.read_text(encoding="ascii")


@contextmanager
def _held(folder: Path) -> Generator[bool]:
    """Lock a working folder; yield False if it is in use or belongs to no build, so that it cannot be locked."""
    if not ((folder / PLAN_FILE).exists() or _is_half_removed(folder)):
        yield False
        return
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _is_half_removed(folder: Path) -> bool:
    """Return whether a folder has only what `_remove` removes last, so that a killed build must have left it."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    return bool(names) and _is_bare(names)


def _is_bare(names: set[str]) -> bool:
    """Return whether a working folder has no work and no plan, except one that a killed build was still writing."""
    begun = {name for name in names if name.startswith(f"{PLAN_FILE}.") and name.endswith(".partial")}
    return names - begun <= {LOCK_FILE, KEEP_FILE}


def _replaced_place(folder: Path) -> Path | None:
    """Return the original place of a replaced store; None if there is none, or a power cut came before the move."""
    try:
        place = json.loads((folder / REPLACED_RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return Path(place) if isinstance(place, str) else None


def _remove(folder: Path) -> None:
    # Remove the large folders first: if this run is killed, the plan still tells which build owns the folder.
    _remove_work(folder)
    if not ((folder / KEEP_FILE).exists() or folder.is_symlink() or folder.is_mount()):
        for path in folder.iterdir():
            # The lock goes last: `_is_half_removed` knows the folder by it.
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK_FILE:
                path.unlink()
        shutil.rmtree(folder)
        return
    for path in [*folder.glob("*.partial"), *(folder / name for name in (TOKEN_FILE, PLAN_FILE, LOCK_FILE, KEEP_FILE))]:
        path.unlink(missing_ok=True)


def _remove_work(folder: Path) -> None:
    # Remove the record first, so that a half-removed earlier store is not put back.
    (folder / REPLACED_RECORD).unlink(missing_ok=True)
    _remove_folders(folder, WORK_FOLDERS)


def _remove_folders(folder: Path, names: tuple[str, ...]) -> None:
    removed = folder / "removed"
    # A killed run may have left `removed`.
    for name in ("removed", *names):
        if (folder / name).exists():
            # Rename it first: a worker of a cluster may still write there, and new files would prevent the removal.
            (folder / name).replace(removed)
            shutil.rmtree(removed)


def _bind(folder: Path, plan: dict[str, Any], *, start_again: bool) -> None:
    path = folder / PLAN_FILE
    begun, wanted = _begun_plan(folder), _as_stored(plan)
    if path.exists() and begun != wanted:
        if start_again:
            _remove_work(folder)
        elif begun is None:
            raise StoreError(folder, "contains a build whose plan cannot be read", "give --overwrite to start again")
        else:
            raise StoreError(
                folder,
                f"contains an unfinished build with another plan ({changed_settings(begun, wanted)})",
                "repeat the command that began it, or give --overwrite to start again",
            )
    elif start_again:
        _remove_folders(folder, ("shards",))
    write_atomically(path, json.dumps(plan, indent=1))


def _begun_plan(folder: Path) -> dict[str, Any] | None:
    """Return the plan of a working folder; None if there is none, or if a power cut left half of it."""
    try:
        begun = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", begun) if isinstance(begun, dict) else None


def _as_stored(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the plan as JSON stores it: tuples become lists, and keys become text."""
    return json.loads(json.dumps(plan))
