"""Tables that people write by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigError
from schemas.text_file import read_table


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_rows_have_the_numbers_of_their_lines_and_cells_without_spaces(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"\ufefffirst{mark} second\r\na {mark} b\r\n\r\n\r\nc{mark}\r\nd\r\n".encode())
    assert read_table(path, "give a table") == [
        (2, {"first": "a", "second": "b"}),
        (5, {"first": "c", "second": ""}),
        (6, {"first": "d", "second": ""}),
    ]


def test_cells_without_a_column_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2,3,4\n")
    assert read_table(path, "give a table") == [(2, {"a": "1", "b": "2"})]


def test_cell_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "x" * 200_000)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_table(path, "give a table")
