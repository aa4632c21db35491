"""Run both command lines: log lines, progress and failures on stderr, as text or as JSON; exit status 1 or 2."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from schemas.command.json_log import FIELDS, JsonFormatter
from schemas.command.stage_timer import logged_timings
from schemas.errors import BcssError, SeveralProblemsError

if TYPE_CHECKING:
    from tqdm import tqdm


INTERRUPTED = 130
"""Exit status of a process that Ctrl-C ends, as shells expect it."""

LOG_EVERY_S = 30.0
"""Seconds between progress lines if stderr is not a terminal."""

_LOG_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} done, {remaining} left{postfix}"


def run_command(app: Callable[..., object], program: str) -> None:
    """Run a command-line application and turn an expected failure into one line and exit status 1.

    Two flags may stand anywhere on the command line. `--debug` shows tracebacks and, at the end, the time of each
    stage. `--log-json` turns each line on stderr into a JSON object, even for wrong arguments or a bug in this
    program, and hides the progress bar. Without `--log-json`, an unexpected exception keeps its traceback.

    Args:
        app: The application. It is called without arguments and parses `sys.argv` itself. For JSON, a typer application
            is called with `standalone_mode=False`, so that typer prints nothing.
        program: The name at the start of each line of text.
    """
    _speak_utf8()
    debug, as_json = _take_flag("--debug"), _take_flag("--log-json")
    _set_up_logging(program, debug=debug, as_json=as_json)
    try:
        with logged_timings() if debug else nullcontext():
            if as_json:
                _run_with_json(app, program, debug=debug)
            else:
                _run_with_text(app, program, debug=debug)
    finally:
        # Libraries clean up when Python exits, and print a traceback if Ctrl-C interrupts them. `atexit` calls the
        # function registered last first, so from then on Ctrl-C ends the process at once.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def printable(text: object) -> str:
    """Make text from a file or a path safe for a terminal: unprintable characters, such as escapes, become U+FFFD."""
    return "".join(character if character.isprintable() else "\ufffd" for character in str(text))


def as_markup(text: object) -> str:
    """Make text from a file or a path safe for rich: brackets are shown and not read as markup; see `printable`."""
    from rich.markup import escape

    return escape(printable(text))


@contextmanager
def progress_bar(desc: str, unit: str, *, silent: bool = False) -> Generator[tqdm[Any]]:
    """Open a progress bar on stderr that does not break log lines.

    It shows nothing under `--log-json`. If stderr is not a terminal, it writes a plain line every half minute.

    Args:
        desc: The name of the work.
        unit: What is counted.
        silent: Whether to show nothing.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    as_json = any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)
    style: dict[str, Any] = {"mininterval": 0.5}
    if not sys.stderr.isatty():
        # A log file gets a line every half minute, and none at the end, so that a short run that fails prints only
        # its error.
        pace = {"mininterval": LOG_EVERY_S, "maxinterval": LOG_EVERY_S, "delay": LOG_EVERY_S, "miniters": 1}
        style = {"file": _Lines(), "leave": False, "bar_format": _LOG_LINE, **pace}
    with logging_redirect_tqdm(), tqdm(desc=desc, unit=unit, disable=silent or as_json, **style) as bar:
        yield bar


def shown_on(bar: tqdm[Any]) -> Callable[[int, int], None]:
    """Return a function that shows the number of finished parts and the number of all parts on a bar."""

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show


def show_step(bar: tqdm[Any], step: int, total: int, postfix: str) -> None:
    """Move a bar to a step of a run. The time left comes from the steps after the first one that the bar is told of.

    Args:
        bar: The bar. A lower step than before is the first one of another run.
        step: Number of the step that ended, from 1.
        total: Steps of the run.
        postfix: Text at the end of the line.
    """
    bar.set_postfix_str(postfix, refresh=False)
    bar.total = total
    if bar.n == 0 or step < bar.n:
        bar.initial = bar.n = bar.last_print_n = step
        bar.start_t = bar.last_print_t = time.time()
    bar.update(step - bar.n)


@contextmanager
def interrupted_as_line(then: str) -> Generator[None]:
    """Turn Ctrl-C into one line and the exit status `INTERRUPTED`.

    Args:
        then: What the user should know: how to continue, or what is lost.
    """
    try:
        yield
    except KeyboardInterrupt:
        logging.getLogger(__name__).warning("interrupted; %s", then)
        sys.exit(INTERRUPTED)


class _Lines:
    """A file for a progress bar that writes lines to stderr instead of redrawing one line."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def show_version(wanted: bool) -> None:
    """Print the package's version and exit; typer calls this for `--version`."""
    if wanted:
        from importlib.metadata import version

        import typer

        typer.echo(version("bcss-sam2"))
        raise typer.Exit


def _speak_utf8() -> None:
    """Restart Python in UTF-8 mode if the locale uses another encoding.

    File names become names of ROIs in the store, and those become file names again. In another encoding, the same
    files would give a different store, or names that cannot be written.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # Child processes inherit this variable.
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _take_flag(flag: str) -> bool:
    """Take a flag out of the command line before the application parses it."""
    given = flag in sys.argv
    sys.argv[:] = [argument for argument in sys.argv if argument != flag]
    return given


class _TextFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))


def own_formatter() -> logging.Formatter | None:
    """Return the form of this program's log lines, for its worker processes; None if another program logs."""
    found = (handler.formatter for handler in logging.getLogger().handlers)
    return next((each for each in found if isinstance(each, (JsonFormatter, _TextFormatter))), None)


def _set_up_logging(program: str, *, debug: bool, as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else _TextFormatter(f"{program}: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if as_json:
        # Otherwise a library's warning would be two lines of plain text.
        logging.captureWarnings(True)
    # matplotlib warns if it cannot write to the home folder; the folder that it uses instead works just as well.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # A local cluster logs the start and end of each worker.
    logging.getLogger("distributed").setLevel(logging.DEBUG if debug else logging.WARNING)
    for package in ("prep", "schemas", "train"):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        threading.excepthook = _warn_of_thread


def _warn_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Log the error that ended a library's thread in one line; code that waits for the thread raises the same error."""
    logging.getLogger("threading").warning("a thread ended: %s", failed.exc_value)


def _run_with_text(app: Callable[..., object], program: str, *, debug: bool) -> None:
    try:
        app()
    except (BcssError, OSError, MemoryError) as error:
        if debug:
            raise
        if isinstance(error, BrokenPipeError):
            _leave_pipe()
        else:
            text = "\n".join(printable(line) for line in _message(error).split("\n"))
            sys.stderr.write(f"{program}: error: {text}\n")
        sys.exit(1)


def _run_with_json(app: Callable[..., object], program: str, *, debug: bool) -> None:
    # Only typer's applications have this argument; it makes them raise errors instead of printing them.
    arguments = {"standalone_mode": False} if hasattr(app, "registered_commands") else {}
    try:
        status = app(**arguments)
    except Exception as error:
        if isinstance(error, BrokenPipeError):
            _leave_pipe()
            sys.exit(1)
        fields, status = _described(error, program), getattr(error, "exit_code", 1)
        is_expected = isinstance(error, BcssError | OSError | MemoryError) or status == 2
        message = _message(error) or fields["what"]
        show_traceback = debug or not is_expected
        log = logging.getLogger(program)
        log.log(logging.ERROR, message, exc_info=error if show_traceback else None, extra={FIELDS: fields})
        sys.exit(status)
    sys.exit(status if isinstance(status, int) else 0)


def _message(error: Exception) -> str:
    """Return the error as one line; a `SeveralProblemsError` keeps one line for each problem."""
    if isinstance(error, SeveralProblemsError):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"memory ran out ({text or 'no more is available'}); use fewer --workers or smaller tiles"
    return text


def _described(error: Exception, program: str) -> dict[str, str]:
    """The parts of an error for JSON: where it is, what is wrong, and what to do about it."""
    if isinstance(error, BcssError):
        where, what, remedy = error.args
        return {"where": where, "what": what, "remedy": remedy}
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        return {
            "where": str(error.filename or program),
            "what": what,
            "remedy": "remove the cause and repeat the command",
        }
    if hasattr(error, "format_message"):
        # The arguments were wrong. The error's class belongs to click, and typer may bundle a copy of click that
        # cannot be imported here.
        return {"where": program, "what": cast("Any", error).format_message(), "remedy": "see --help"}
    return {"where": program, "what": f"{type(error).__name__}: {error}", "remedy": "report this bug"}


def _leave_pipe() -> None:
    """Discard output after the reader has closed the pipe (`| head`), so that flushing at exit does not raise again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
