"""The folder in which a build works, beside its destination: locked, bound to one plan, kept until the build is done.

A build that was killed leaves the folder; the next run of the same plan finds there what is finished. A run with
another plan is refused, and a folder that no build made is never touched.
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

from prep.files import is_there, write_atomically
from schemas.errors import StoreError

PLAN_FILE = "bcss-prep-build.json"
"""Marks a folder as a build's own: a name that no other program gives a file."""

LOCK_FILE = "lock"

WORK_FOLDERS = ("rois", "shards", "store", "publish", "replaced")
"""What a build makes in its folder; a build that starts again removes these and nothing else."""

KEEP_FILE = "keep"
"""Marks a working folder that was there before the build, which is emptied and not removed."""

TOKEN_FILE = "token"
"""Identifies this build in the lock object of an object store."""

REPLACED_RECORD = "replaced.json"
"""Names the place whose store is in `replaced`, while no other store is there yet."""


@contextmanager
def open_workspace(folder: Path, plan: dict[str, Any], *, start_again: bool) -> Generator[Path]:
    """Lock a working folder for one plan; it is removed on success and kept on failure if it holds work.

    One that was there before, empty, a link or a mount point perhaps, is emptied instead.

    Args:
        folder: The working folder.
        plan: What is built from what, as JSON values; equal plans give equal stores.
        start_again: Whether what the folder holds of another plan, or of one that cannot be read, is thrown away.

    Raises:
        StoreError: Another build holds the folder, it belongs to another plan, or no build made it.
    """
    there = {path.name for path in folder.iterdir()} if folder.exists() else None
    if there is not None and PLAN_FILE not in there and there - {LOCK_FILE, KEEP_FILE}:
        raise StoreError(folder, "is in the way and was made by no build", "move it away, or choose another --out")
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
        # What is already prepared spares the next run its work; an empty folder would only be in the way.
        # A replaced store may be the only one left.
        if not any((folder / "rois").glob("*/staged.json")) and not (folder / REPLACED_RECORD).exists():
            with suppress(OSError):
                _remove(folder)
        raise
    finally:
        lock.release()


def remove_left_over(folder: Path, plan: dict[str, Any], before: Callable[[Path], None]) -> None:
    """Remove the working folder of a build that was killed when its store was in place; one in use or of another stays.

    Args:
        folder: The working folder, if there is one.
        plan: What the store was built from.
        before: Called with the folder once it is locked.
    """
    if _begun_plan(folder) != _as_stored(plan):
        return
    with _held(folder) as held:
        if held:
            before(folder)
            _remove(folder)


def restore_replaced(folder: Path) -> None:
    """Put a store back that a build had moved out of its place when it was killed, if nothing else is there by now."""
    with _held(folder) as held:
        place = _replaced_place(folder) if held else None
        if place is not None and not is_there(place) and (folder / "replaced").exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            (folder / "replaced").rename(place)
            (folder / REPLACED_RECORD).unlink()


def build_token(folder: Path) -> str:
    """What this build's lock object contains; a restarted build has the same token."""
    path = folder / TOKEN_FILE
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="ascii")
    return path.read_text(encoding="ascii")


@contextmanager
def _held(folder: Path) -> Generator[bool]:
    """Hold a build's folder; not if another build does, or none made it."""
    if not (folder / PLAN_FILE).exists():
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


def _replaced_place(folder: Path) -> Path | None:
    """Where a replaced store was; None if it need not go back, or its move had not begun when power was lost."""
    try:
        place = json.loads((folder / REPLACED_RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return Path(place) if isinstance(place, str) else None


def _remove(folder: Path) -> None:
    # What takes long goes first: until then the plan says whose folder it is, should a kill come in between.
    _remove_work(folder)
    if not ((folder / KEEP_FILE).exists() or folder.is_symlink() or folder.is_mount()):
        shutil.rmtree(folder)
        return
    for path in [*folder.glob("*.partial"), *(folder / name for name in (TOKEN_FILE, PLAN_FILE, LOCK_FILE, KEEP_FILE))]:
        path.unlink(missing_ok=True)


def _remove_work(folder: Path) -> None:
    # Half of a replaced store is not to come back.
    (folder / REPLACED_RECORD).unlink(missing_ok=True)
    removed = folder / "removed"
    # What a kill has left of it goes first.
    for name in ("removed", *WORK_FOLDERS):
        if (folder / name).exists():
            # A worker of a cluster may write there yet, and what files appear in cannot be removed.
            (folder / name).replace(removed)
            shutil.rmtree(removed)


def _bind(folder: Path, plan: dict[str, Any], *, start_again: bool) -> None:
    path = folder / PLAN_FILE
    begun, wanted = _begun_plan(folder), _as_stored(plan)
    if path.exists() and begun != wanted:
        if start_again:
            _remove_work(folder)
        elif begun is None:
            raise StoreError(folder, "holds a build whose plan cannot be read", "give --overwrite to start again")
        else:
            raise StoreError(
                folder,
                f"holds a build that was begun otherwise ({_difference(begun, wanted)})",
                "repeat the command that began it, or give --overwrite to start again",
            )
    write_atomically(path, json.dumps(plan, indent=1))


def _begun_plan(folder: Path) -> dict[str, Any] | None:
    """The plan that a folder is bound to, None where there is none or a machine that lost its power left half of it."""
    try:
        begun = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", begun) if isinstance(begun, dict) else None


def _as_stored(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan through JSON, so that tuples and integer keys compare as they are stored."""
    return json.loads(json.dumps(plan))


def _difference(begun: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    """Name the first setting in which two plans differ."""
    for key in sorted(begun.keys() | wanted.keys()):
        one, other = begun.get(key), wanted.get(key)
        if one != other:
            if isinstance(one, dict) and isinstance(other, dict):
                return _difference(cast("dict[str, Any]", one), cast("dict[str, Any]", other), f"{prefix}{key}.")
            return f"{prefix}{key}: {one} then, {other} now"
    return "nothing"
