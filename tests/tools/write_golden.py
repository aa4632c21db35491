"""Write what a revision reads and writes, for tests that hold later code to it.

    python -m tests.tools.write_golden 3638d48

writes `store_REV.zarr`, `store_REV.json` and `checkpoints_REV.json` into tests/golden, with that revision's own code.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from tests.tools.checkpoint_form import describe_checkpoints
from tests.tools.trees import CHECKOUT, TreeError, check_runs_from, run_python, unpack_revision

GOLDEN = CHECKOUT / "tests" / "golden"

FIT = ["--image-size", 128, "--batch-size", 1, "--max-objects", 2, "--max-steps", 2, "--seed", 3, "--workers", 0]
RUNS = {"plain": [], "lora": ["--lora", 2], "ema": ["--ema", 0.9]}


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
        contents: dict[str, dict[str, Any]] = {}
        for run, flags in RUNS.items():
            # The trunk is frozen, so that the optimizer's state is small.
            flags = [*FIT, "--freeze", "decoder_only", "--device", "cpu", "--no-report", *flags]
            run_python(tree, folder, "-m", "train.cli", "fit", store, "--out", run, *flags)
            contents[run] = torch.load(folder / run / "checkpoints" / "checkpoint.pt", weights_only=True)
        _write(f"checkpoints_{revision}", describe_checkpoints(contents))


def _write(name: str, values: dict[str, Any]) -> None:
    (GOLDEN / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
