"""Show that the checkout does what another revision does.

    python -m tests.tools.same_as 3638d48 [--keep]

The script makes data, stores, runs and an evaluation with the code of both, side by side and on one thread each. It
compares every byte of the data and the stores, and every bit of losses, weights, optimizer states and scores. It takes
three minutes on two cores. It ends with status 0 and `the same`, or with status 1 and the first differences. A setting
that only the checkout has is noted and is not a difference.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from tests.tools.compare import (
    TIMES,
    Comparison,
    compare_checkpoints,
    compare_columns,
    compare_folders,
    compare_json,
    compare_names,
    compare_stores,
)
from tests.tools.trees import CHECKOUT, TreeError, check_runs_from, run_python, unpack_revision
from train.choices import BASELINES

SHOWN_DIFFERENCES = 20

BUILDS = tuple(product(("label", "component"), ("fast", "small"), ("tile", "resize")))
"""Objects, codec and layout of the stores."""

FIT = ("--model", "tiny", "--image-size", 128, "--batch-size", 2, "--max-steps", 12, "--lr", 1e-4, "--vision-lr", 1e-4)
RUNS: dict[str, tuple[object, ...]] = {
    "box": ("--prompt", "box"),
    "mixed": ("--prompt", "mixed"),
    "random": ("--prompt", "random", "--corrections", 2),
    "lora": ("--prompt", "box", "--lora", 4, "--ema", 0.9),
    "cached": ("--prompt", "box", "--freeze", "decoder_only", "--cache-features"),
}

RESCORED = ("ci95", "intervals", "surface_dice", "paired", "dice_after_clicks", "val_score")
"""Entries of scores whose definition has changed since: intervals, which outlines count, where clicks fall, and the
score that chooses the best weights, which is now the mean over classes of the mean over patients."""

AVERAGED = ("ema", "val")
"""Entries of a run with a moving average, which warms up since. Its losses, weights and optimizer are compared."""

BEST = ("best_val", "best_meter_values", "epochs_since_best")
"""Entries of a run that may differ because the checkout also validates the start, which may be the best."""

EVALUATED = "box"

STORE = "small.zarr"

MEASURED = (*TIMES, "seconds", "images_per_s", "data_wait_fraction", "peak_memory_bytes")
"""Entries of summary.json that differ between any two runs."""


@dataclass(frozen=True)
class Sides:
    """Two trees, and the folders that their programs run in, so that both get the same relative paths.

    Attributes:
        trees: The revision's tree, and the checkout.
        folders: The working folder of each.
    """

    trees: tuple[Path, Path]
    folders: tuple[Path, Path]

    def run(self, module: str, *arguments: object) -> None:
        """Run a program with both trees at once.

        Raises:
            TreeError: The program failed.
        """
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda tree, cwd: run_python(tree, cwd, "-m", module, *arguments), self.trees, self.folders))

    def run_each(self, module: str, then: Sequence[object], now: Sequence[object]) -> None:
        """Run a program with other arguments for each tree, where a flag has another meaning since.

        Raises:
            TreeError: The program failed.
        """
        for tree, cwd, arguments in zip(self.trees, self.folders, (then, now), strict=True):
            run_python(tree, cwd, "-m", module, *arguments)

    def paths(self, name: str) -> tuple[Path, Path]:
        """Return the paths of something that both have written."""
        then, now = (folder / name for folder in self.folders)
        return then, now


def main(
    revision: Annotated[str, typer.Argument(help="Revision to compare the checkout with.")],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the written files, and print their folder.")] = False,
) -> None:
    """Compare the checkout with a revision."""
    try:
        with _work_folder(keep=keep) as folder:
            found = list(_compare_all(revision, folder, keep=keep))
    except TreeError as error:
        raise SystemExit(f"error: {error}") from error
    for note in [note for comparison in found for note in comparison.notes]:
        typer.echo(f"note: {note}")
    count = sum(comparison.count for comparison in found)
    differences = [difference for comparison in found for difference in comparison.differences]
    if differences:
        for difference in differences[:SHOWN_DIFFERENCES]:
            typer.echo(difference)
        raise SystemExit(f"not the same: {len(differences)} differences, {count} things compared")
    typer.echo(f"the same: {count} things compared")


@contextmanager
def _work_folder(*, keep: bool) -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="same_as_"))
    try:
        yield folder
    finally:
        if keep:
            typer.echo(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _compare_all(revision: str, folder: Path, *, keep: bool) -> Iterator[Comparison]:
    """Make and compare one thing after the other, and print each result as it is found."""
    sides = Sides((unpack_revision(revision, folder / "tree"), CHECKOUT), (folder / "then", folder / "now"))
    for tree, cwd in zip(sides.trees, sides.folders, strict=True):
        cwd.mkdir()
        check_runs_from(tree, cwd)
    for compare in (_compare_stores, _compare_runs, _compare_evaluations):
        for comparison in compare(sides, keep=keep):
            typer.echo(comparison)
            yield comparison


def _compare_stores(sides: Sides, *, keep: bool) -> Iterator[Comparison]:
    """Compare the sample data, and the stores of every kind that are built from it."""
    sides.run("prep.cli", "sample", "source", "--rois", 6, "--size", 1536, "--seed", 0)
    yield compare_folders("sample", *sides.paths("source"))
    for objects, codec, layout in BUILDS:
        name = f"{objects}-{codec}-{layout}.zarr"
        kind = ("--objects", objects, "--codec", codec, "--layout", layout)
        sides.run("prep.cli", "build", "source", "--out", name, "--size", 512, "--workers", 1, *kind)
        yield compare_stores(name, *sides.paths(name))
        if not keep:
            for path in sides.paths(name):
                shutil.rmtree(path)


def _compare_runs(sides: Sides, *, keep: bool) -> Iterator[Comparison]:
    """Compare runs of twelve steps: losses, weights, and what is said of the run."""
    sides.run("prep.cli", "sample", "small", "--rois", 6, "--size", 288, "--seed", 1)
    # Where tiles overlap, the revision may score a pixel twice, and now it counts once.
    sides.run("prep.cli", "build", "small", "--edge", "pad", "--out", STORE, "--size", 128, "--workers", 1)
    for name, flags in RUNS.items():
        fixed = ("--seed", 3, "--workers", 0, "--device", "cpu", "--save-every-steps", 4)
        sides.run("train.cli", "fit", STORE, "--out", name, *FIT, *fixed, *flags)
        changed = (*RESCORED, *AVERAGED) if "--ema" in flags else RESCORED
        yield compare_names(f"{name}: files", *sides.paths(name), left_out="tensorboard")
        yield compare_json(
            f"{name}: metrics.jsonl", *sides.paths(f"{name}/metrics.jsonl"), (*TIMES, *changed), may_grow=True
        )
        yield compare_json(
            f"{name}: summary.json", *sides.paths(f"{name}/summary.json"), (*MEASURED, *changed, *BEST), may_grow=True
        )
        # If the start or an average may be the best, best.pt holds other weights than the revision's.
        _, summary = sides.paths(f"{name}/summary.json")
        best_is_other = json.loads(summary.read_text(encoding="utf-8"))["best_is_start"] or "--ema" in flags
        for file in ("checkpoint.pt",) if best_is_other else ("checkpoint.pt", "best.pt"):
            path = f"{name}/checkpoints/{file}"
            yield compare_checkpoints(f"{name}: {file}", *sides.paths(path), (*changed, *BEST))
        if not keep and name != EVALUATED:
            for path in sides.paths(name):
                shutil.rmtree(path)


def _compare_evaluations(sides: Sides, *, keep: bool) -> Iterator[Comparison]:
    """Compare all that an evaluation of one run writes, except its pictures for people."""
    del keep
    # Masks of a baseline are written if it is named; older revisions wrote them always.
    baselines = [flag for name in BASELINES for flag in ("--baseline", name)]
    asked = ("--prompt", "box", "--prompt", "centroid", "--corrections", 1, "--save-masks", "--stitch", *baselines)
    asked = (*asked, "--device", "cpu", "--out", "scores")
    # Older revisions named a model after its file alone.
    file = Path(EVALUATED, "checkpoints", "checkpoint.pt")
    then, now = (("evaluate", STORE, "--checkpoint", given, *asked) for given in (file, f"{file.stem}={file}"))
    sides.run_each("train.cli", then, now)
    # The digest of the scored file covers the seconds that the run took.
    yield compare_json(
        "evaluation: metrics.json", *sides.paths("scores/metrics.json"), ("sha256", *RESCORED), may_grow=True
    )
    for name in ("masks", "stitched"):
        before, after = sides.paths(f"scores/{name}")
        # Masks of an untrained network are no longer written.
        untrained = [path.relative_to(before).as_posix() for path in before.glob("baseline_untrained/*/*")]
        yield compare_folders(f"evaluation: {name}", before, after, left_out=untrained)
    yield compare_columns("evaluation: objects.csv", *sides.paths("scores/objects.csv"), RESCORED)


if __name__ == "__main__":
    typer.run(main)
