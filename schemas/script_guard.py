"""Tell users of spawned processes that a script needs `if __name__ == "__main__":`.

A spawned process imports the script that started it. Without that line, the import runs the whole script once more.
Source: Python's documentation of multiprocessing, "Safe importing of main module".
"""

from __future__ import annotations

import inspect
import sys

from schemas.errors import ConfigError

_IMPORTED_SCRIPT = "__mp_main__"
"""The name that multiprocessing gives to the script while a spawned process imports it."""

GUARD_REMEDY = 'put the script\'s calls below a line `if __name__ == "__main__":`'


def refuse_while_imported(call: str) -> None:
    """Refuse a call that a spawned process makes because it imports a script without the guard.

    Args:
        call: Name of the function that was called.

    Raises:
        ConfigError: The call comes from the top level of such a script.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == _IMPORTED_SCRIPT:
            raise ConfigError(
                f"{frame.f_code.co_filename}, line {frame.f_lineno}",
                f"calls {call} again while a worker process imports the script",
                GUARD_REMEDY,
            )
        frame = frame.f_back


def is_script() -> bool:
    """Return whether Python runs a script file of the user, which spawned processes would import."""
    main = sys.modules.get("__main__")
    return getattr(main, "__file__", None) is not None and getattr(main, "__spec__", None) is None
