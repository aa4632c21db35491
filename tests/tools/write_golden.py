"""Write a store with a revision's code, and what it reads from it, for tests that hold later code to it.

    python -m tests.tools.write_golden 3638d48

writes `store_REV.zarr` and `store_REV.json` into tests/golden.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.tools.trees import CHECKOUT, TreeError, check_runs_from, run_python, unpack_revision

GOLDEN = CHECKOUT / "tests" / "golden"


def main(revision: Annotated[str, typer.Argument(help="A revision of the project.")]) -> None:
    """Write the files of a revision."""
    try:
        _write_all(revision)
    except TreeError as error:
        raise SystemExit(f"error: {error}") from error


def _write_all(revision: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = unpack_revision(revision, folder / "tree")
        check_runs_from(tree, folder)
        store = GOLDEN / f"store_{revision}.zarr"
        shutil.rmtree(store, ignore_errors=True)
        run_python(tree, folder, "-m", "prep.cli", "sample", "source", "--rois", 2, "--size", 128)
        # One patient is trained on and the other is validated on.
        build = ["build", "source", "--size", 64, "--objects", "component", "--split-fractions", "0.5,0.5,0"]
        run_python(tree, folder, "-m", "prep.cli", *build, "--out", store)
        digests = run_python(tree, folder, Path(__file__).with_name("store_digests.py"), store)
        _write(f"store_{revision}", json.loads(digests))


def _write(name: str, values: dict[str, Any]) -> None:
    (GOLDEN / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
