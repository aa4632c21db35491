"""Check that a program either refuses a hostile input in one line or uses it; everything else fails the test.

While an input is tried, a guard limits the address space, so allocating memory for a false claim fails at once. The
guard also watches what Python opens, runs and removes, and measures the time of each input.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from schemas.errors import BcssError

MEMORY_BOUND_BYTES = 1 << 30
"""Extra address space beyond what the process held before the inputs; reader threads need stacks and arenas in it."""

INPUT_S = 20.0
"""Time limit for one input. An input takes milliseconds, but longer on a machine that is busy with other tests."""

_RUNS_CODE = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.startfile",
    "pickle.find_class",
)
_CHANGES_FILES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
_PATHS = {"os.rename": 2, "os.link": 2, "os.symlink": 2}
"""How many of an event's arguments are paths; one unless given."""

# Python does not tell an audit hook its caller in another way.
_frame_above = sys._getframe  # pyright: ignore[reportPrivateUsage]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Guard:
    """Tries inputs, and counts how many are refused and how many are used.

    Args:
        folder: The only place where an input may make the program write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.resolve())
        self.refused = self.accepted = 0
        self._watching = False
        self._seen: list[str] = []
        sys.addaudithook(self._watch)

    @property
    def tried(self) -> int:
        """The number of inputs tried so far."""
        return self.refused + self.accepted

    def attempt(self, action: Callable[[], object], what: object = "") -> None:
        """Run the program on one input.

        Args:
            action: Runs the program on the input.
            what: The input, for the message of a failed test.
        """
        begun = time.monotonic()
        self._seen.clear()
        self._watching = True
        try:
            action()
            self.accepted += 1
        except BcssError as error:
            self.refused += 1
            _assert_memory_was_had(error, what)
        finally:
            self._watching = False
        assert not self._seen, (self._seen, what)
        assert time.monotonic() - begun < INPUT_S, what

    def _watch(self, event: str, args: tuple[object, ...]) -> None:
        # Python cannot remove an audit hook, so this one must be silent and quick while no input is tried.
        if not self._watching:
            return
        # Looking up the caller is an event, too, so it is done for this kind of event alone.
        if event in _RUNS_CODE or (event == "exec" and _is_text(args[0], _frame_above(1))):
            self._seen.append(f"{event} {args!r}"[:200])
        elif event == "open" and isinstance(args[2], int) and args[2] & _WRITES and not self._is_inside(args[0]):
            self._seen.append(f"open {args[0]!r} for writing")
        elif event in _CHANGES_FILES and not all(map(self._is_inside, args[: _PATHS.get(event, 1)])):
            self._seen.append(f"{event} {args!r}"[:200])

    def _is_inside(self, path: object) -> bool:
        if isinstance(path, int):
            return True
        real = os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
        return real.startswith((self.folder + os.sep, "/dev/null"))


def _is_text(code: object, caller: FrameType) -> bool:
    """Whether code was compiled from a string, as by `eval`; types that the standard library generates do not count."""
    of_type = caller.f_globals.get("__name__") in ("collections", "dataclasses")
    return getattr(code, "co_filename", "") == "<string>" and not of_type


def _assert_memory_was_had(error: BaseException, what: object) -> None:
    """Check that no allocation failed: a size that is too large must be refused before memory is requested."""
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError), (error, what)
        assert "allocate memory" not in str(cause), (error, what)
        cause = cause.__cause__ or cause.__context__


@contextmanager
def bounded_memory(bound_bytes: int = MEMORY_BOUND_BYTES) -> Generator[None]:
    """Limit the address space of this process to its present size plus `bound_bytes`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + bound_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
