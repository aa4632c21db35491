"""Let only one process at a time write to a folder of results."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from schemas.errors import TrainingError
from train.runtime.distributed import World, raised_once

LOCK_FILE = ".lock"


@contextmanager
def locked_folder(out: Path) -> Generator[None]:
    """Make a folder and hold its lock. The system frees the lock when the process ends, even if it is killed.

    A folder that was made here and is still empty at the end is removed.

    Args:
        out: The folder.

    Raises:
        TrainingError: Another process writes to the folder, or it cannot be made.
    """
    is_new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout as error:
        remedy = "wait until it ends, or choose another --out"
        raise TrainingError(out, "is in use by another run", remedy) from error
    except OSError as error:
        remedy = "give this user permission to write there, or choose another --out"
        raise TrainingError(out, f"cannot be written ({error})", remedy) from error
    try:
        yield
    finally:
        # An error here would hide the error that ended the run.
        with suppress(OSError):
            if is_new and [path.name for path in out.iterdir()] == [LOCK_FILE]:
                (out / LOCK_FILE).unlink()
                out.rmdir()
        lock.release()


@contextmanager
def locked_by_first(out: Path, world: World) -> Generator[None]:
    """Hold a folder's lock for all processes of a run. The first one takes it, and the others wait until it has.

    If it gets no lock, the others end without an error, so that the error is printed once.

    Args:
        out: The folder.
        world: The processes of the run; at the end, the first must not leave before the others have finished.

    Raises:
        TrainingError: Another run writes to the folder, or it cannot be made. Only the first process raises this.
    """
    with ExitStack() as stack:
        with raised_once(world):
            world.together(lambda: stack.enter_context(locked_folder(out)) if world.is_main else None)
        yield
