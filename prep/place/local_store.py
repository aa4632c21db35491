"""Move a finished store to its destination by one rename; from another file system, first copy it beside that."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

from prep.files import write_atomically
from prep.place.workspace import REPLACED_RECORD, open_workspace, remove_left_over, restore_replaced
from schemas.file_names import bounded_name
from schemas.store.location import is_remote


def publish_local(store_dir: Path, destination: Path, replaced: Path) -> None:
    """Move a finished store to its destination.

    Args:
        store_dir: The finished store.
        destination: The store's folder.
        replaced: Where an earlier store is moved; if the file system differs, it is moved beside the destination.
    """
    # If the working folder is elsewhere, the parent of the destination may not exist yet.
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
    """Undo a replacement that a killed build left unfinished: put the earlier store back, and remove any copy."""
    restore_replaced(work)
    if is_remote(location):
        return
    beside = _beside(Path(location))
    restore_replaced(beside)
    # The record still exists if something else has taken the place of the earlier store.
    if not (beside / REPLACED_RECORD).exists():
        remove_left_over(beside, _copy_plan(Path(location)), lambda _: None)


def _beside(destination: Path) -> Path:
    """Return the working folder beside the destination, into which a store is copied from another file system."""
    return destination.with_name(bounded_name(destination.name, ".arriving"))


def _copy_plan(destination: Path) -> dict[str, str]:
    return {"arrives_at": destination.name}


def _exchange(store_dir: Path, destination: Path, replaced: Path) -> None:
    """Rename an earlier store to `replaced`, and the new store to its place; if one rename fails, undo both.

    If the process is killed between the two renames, `recover` puts the earlier store back.
    """
    earlier = destination.exists()
    record = replaced.with_name(REPLACED_RECORD)
    if earlier:
        # A run that was killed after it had put its store in place may have left this folder.
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
