"""Run the two programs with the code of one tree: the checkout, or another revision that is unpacked for it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("prep", "schemas", "train")

_WHERE = f"import {', '.join(PACKAGES)}; print({', '.join(f'{name}.__file__' for name in PACKAGES)}, sep='\\n')"


class TreeError(Exception):
    """A tree cannot be run; the message is one line."""


def unpack_revision(revision: str, folder: Path) -> Path:
    """Unpack a revision of the project into a folder of its own.

    Raises:
        TreeError: There is no such revision, or no git.
    """
    command = ["git", "-C", str(CHECKOUT), "archive", "--format=tar", revision]
    try:
        packed = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise TreeError("git is not installed") from error
    except subprocess.CalledProcessError as error:
        raise TreeError(f"git has no revision {revision}: {_last_line(error.stderr.decode())}") from error
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    _describe(folder)
    return folder


def _describe(tree: Path) -> None:
    """Write the metadata of a tree, so that its own entry points are found and not those of the installed version."""
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = tree / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(metadata, encoding="utf-8")
    groups = project.get("entry-points", {})
    lines = [
        line for group, names in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in names.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_python(tree: Path, cwd: Path, *arguments: object) -> str:
    """Run Python with a tree's packages, on one thread, and return what it printed.

    Args:
        tree: Its packages come before those that are installed.
        cwd: A folder outside both trees, since Python looks for packages there first.
        arguments: Arguments of Python.

    Raises:
        TreeError: Python ended with an error.
    """
    command = [sys.executable, *map(str, arguments)]
    settings = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=cwd, env=os.environ | settings, capture_output=True, text=True, check=False)
    if ran.returncode:
        said = _last_line(ran.stderr or ran.stdout)
        raise TreeError(f"{' '.join(command[1:])} with {tree} ended with {ran.returncode}: {said}")
    return ran.stdout


def check_runs_from(tree: Path, cwd: Path) -> None:
    """Check that Python imports the packages of a tree, and not those that are installed.

    Raises:
        TreeError: It imports others.
    """
    for found in run_python(tree, cwd, "-c", _WHERE).split("\n"):
        if found and not Path(found).is_relative_to(tree):
            raise TreeError(f"{found} is taken instead of what is in {tree}")


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
