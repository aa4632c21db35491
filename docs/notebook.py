"""Run `docs/tutorial.ipynb` and keep its outputs: `python -m docs.notebook`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from nbclient import NotebookClient
from nbformat import read, write  # pyright: ignore[reportUnknownVariableType]

NOTEBOOK = Path(__file__).with_name("tutorial.ipynb")
ROOT = NOTEBOOK.parents[1]

CELL_S = 900
"""Longest time of a cell in seconds."""


def executed(folder: Path, programs: Path, *, quick: bool = False) -> Any:
    """Run all cells of the notebook in a folder of their own.

    Args:
        folder: Working folder of the cells.
        programs: Folder of `bcss-prep` and `bcss-train`.
        quick: Whether the training stops after two steps.

    Returns:
        The notebook with its outputs.
    """
    notebook = cast("Any", read(NOTEBOOK, as_version=4))
    cells = cast("list[Any]", notebook.cells)
    sources = [str(cell.source) for cell in cells]
    if quick:
        for cell in cells:
            cell.source = re.sub(r"--max-steps \d+", "--max-steps 2", cell.source)
    # The programs and the packages are those of this checkout, whichever environment the kernel finds.
    path = os.pathsep.join((str(programs), os.environ["PATH"]))
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    client = NotebookClient(
        notebook, timeout=CELL_S, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    for cell, source in zip(cells, sources, strict=True):
        cell.source = source
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Join the pieces of each stream, which end where a buffer was full."""
    joined: list[Any] = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before and output.output_type == before.output_type == "stream" and output.name == before.name:
            before.text += output.text
        else:
            joined.append(output)
    return joined


def main() -> None:
    """Run the notebook, and write it with its outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", metavar="FILE", type=Path, help="train two steps, and write the notebook to FILE")
    own = Path(sys.executable).parent
    parser.add_argument(
        "--programs", metavar="FOLDER", type=Path, default=own, help="where bcss-prep and bcss-train are"
    )
    given = parser.parse_args()
    quick: Path | None = given.quick
    with tempfile.TemporaryDirectory() as folder:
        write(executed(Path(folder), given.programs, quick=quick is not None), quick or NOTEBOOK)


if __name__ == "__main__":
    main()
