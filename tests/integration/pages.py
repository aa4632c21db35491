"""Run what a page of the documentation shows, as it stands there: Python, and each command of a `bash` block.

Blocks marked `sh` need a cluster, a bucket or a download; only their flags are checked. A training of a hundred
steps or more makes two.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.warm_commands import MODULES, warm_commands

ROOT = Path(__file__).parents[2]

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]

_FIT = (
    "--image-size",
    "128",
    "--batch-size",
    "2",
    "--max-steps",
    "2",
    "--workers",
    "0",
    "--no-report",
    "--device",
    "cpu",
)

_GIVEN_RUNS = {"tiny": "run", "nano": "run_nano"}

_EACH_BLOCK = "import sys; [exec(compile(block, 'page', 'exec'), {'__name__': '__main__'}) for block in sys.argv[1:]]"


@dataclass(frozen=True)
class Prepared:
    """What pages take as given.

    Attributes:
        folder: Synthetic data, and a store of it.
        programs: The folder with the programs that pages call.
    """

    folder: Path
    programs: Path

    def run(self, command: list[str], folder: Path, what: str) -> None:
        """Run a command, and fail with what it printed."""
        environment = {
            **os.environ,
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "MPLBACKEND": "Agg",
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            [str(self.programs / command[0]) if command[0] in MODULES else command[0], *command[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{what}:\n{command[-1]}\n{done.stderr[-2000:]}"


def blocks(page: str, languages: str) -> list[tuple[str, str]]:
    """Return language and text of each block of a page."""
    return re.findall(rf"```({languages})\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@contextmanager
def prepare_folder(folder: Path) -> Generator[Prepared]:
    """Make what pages take as given."""
    (folder / "programs").mkdir()
    (folder / "given").mkdir()
    with warm_commands(folder / "programs") as programs:
        prepared = Prepared(folder / "given", programs)
        for command in (
            ["bcss-prep", "sample", "data/BCSS", "--rois", "6", "--size", "256"],
            ["bcss-prep", "build", "data/BCSS", "--out", "bcss.zarr", "--size", "256"],
        ):
            prepared.run(command, prepared.folder, "given")
        yield prepared


def run_page(page: str, prepared: Prepared, folder: Path) -> None:
    """Run all blocks of a page in a folder of its own; Python blocks in a row share one process."""
    shown = "".join(text for _, text in blocks(page, "bash|python"))
    for model, run in _GIVEN_RUNS.items():
        # Pages share a run of each network, which is made when a page first reads one that it does not make itself.
        is_read = re.search(rf"\b{run}/", shown) and not _makes(shown, run)
        if is_read and not (prepared.folder / run).exists():
            fit = ["bcss-train", "fit", "bcss.zarr", "--out", run, "--model", model, "--freeze", "decoder_only", *_FIT]
            prepared.run(fit, prepared.folder, run)
    if "bcss-prep sample" not in shown:
        shutil.copytree(
            prepared.folder, folder, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if _makes(shown, n)]
        )
    for language, group in itertools.groupby(blocks(page, "bash|python"), key=lambda block: block[0]):
        # A training that is long enough to learn something is cut short.
        texts = [re.sub(r"--max-steps \d{3,}", "--max-steps 2", text) for _, text in group]
        commands = [["python", "-c", _EACH_BLOCK, *texts]]
        if language == "bash":
            commands = [["bash", "-euo", "pipefail", "-c", text] for text in texts]
        for command in commands:
            prepared.run(command, folder, page)


def _makes(shown: str, run: str) -> bool:
    return run in _GIVEN_RUNS.values() and f"--out {run} " in shown
