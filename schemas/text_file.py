"""Read a text file of bounded size, such as settings, a class map, a table or annotations in JSON."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from schemas.errors import ConfigError

MAX_TEXT_BYTES = 1 << 24
"""Maximum size of a file that a person wrote. A list of 65,536 classes or 100,000 patients takes a quarter of it."""

_PIECE_BYTES = 1 << 20


def delimiter_of(table: str) -> str:
    """Return what separates the columns of a table: a tab, semicolon or comma, the first of these in its header."""
    header = table.partition("\n")[0]
    return next((mark for mark in "\t;," if mark in header), ",")


def read_text_file(path: Path, remedy: str, bound_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 text with or without a byte order mark; line ends stay as they are.

    Args:
        path: The file; an endless device or pipe is read up to the maximum size.
        remedy: What to do if the file cannot be used, for the error.
        bound_bytes: Maximum size in bytes.

    Raises:
        ConfigError: The file is absent, unreadable, larger than the maximum size, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            # Read in pieces, because one read allocates as many bytes as it is asked for.
            data = bytearray()
            while len(data) <= bound_bytes and (piece := file.read(_PIECE_BYTES)):
                data += piece
        text = data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(path, "does not exist", "check the path") from error
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror or error})", remedy) from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not UTF-8 text ({error})", remedy) from error
    if len(data) > bound_bytes:
        raise ConfigError(path, f"is longer than {bound_bytes} bytes", remedy)
    return text


def read_table(path: Path, remedy: str) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file; its header shows whether a comma, a semicolon or a tab separates the columns.

    Args:
        path: The file.
        remedy: What to do if the file cannot be used, for the error.

    Returns:
        For each row the number of its line in the file, from 1, and its cells by column, without spaces around either.
        A cell that the row lacks is empty. Cells without a column are left out.

    Raises:
        ConfigError: The file cannot be read.
    """
    text = read_text_file(path, remedy)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ConfigError(path, f"cannot be read ({error})", remedy) from error
    return [(line, {name.strip(): (cell or "").strip() for name, cell in row.items() if name}) for line, row in rows]
