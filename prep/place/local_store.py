"""Put a finished store into its folder by one rename; from another file system it is copied beside its place first."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

from prep.files import write_atomically
from prep.place.workspace import REPLACED_RECORD, open_workspace, remove_left_over, restore_replaced
from schemas.store.location import is_remote


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
