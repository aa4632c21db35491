"""How both command lines report failure: one line on stderr and exit status 1, 2 for a wrong call."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from schemas.errors import BcssError


def run_command(app: Callable[[], object], program: str) -> None:
    """Run a command-line application and turn an expected failure into one line and exit status 1.

    With `--debug` anywhere on the command line the traceback is shown instead. An unexpected exception is a defect of
    ours and keeps its traceback.

    Args:
        app: The application, called without arguments; it parses `sys.argv` itself.
        program: The name that the line starts with.
    """
    debug = "--debug" in sys.argv
    if debug:
        # The flag may stand before or after the sub-command, so it is taken out before the application parses.
        sys.argv.remove("--debug")
    logging.basicConfig(level=logging.WARNING, format=f"{program}: %(message)s", stream=sys.stderr)
    for package in ("prep", "schemas", "train"):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        app()
    except (BcssError, OSError) as error:
        if debug:
            raise
        # A pipe closed by the reader (`| head`) is not worth a message, and flushing at exit must not raise again.
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            sys.stderr.write(f"{program}: error: {' '.join(str(error).split())}\n")
        sys.exit(1)
