"""Write the license table of `docs/dependencies.md` from the installed packages; `make licenses` runs this."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import cast

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "bcss-sam2"
PAGE = Path(__file__).with_name("dependencies.md")
BEGIN, END = "<!-- licenses: begin -->\n", "<!-- licenses: end -->\n"

EXTRAS = ("dask", "lora", "s3", "slides", "small")
"""The extras that a user may install; those for tests and tools are not needed to run the programs."""


@dataclass(frozen=True)
class Dependency:
    """One installed package that the project needs.

    Attributes:
        name: Normalized name of the package.
        version: Installed version.
        license_name: License in the package's metadata; `?` if there is none.
        needed_by: `direct` or the extra if the project names the package, else the packages that need it.
    """

    name: str
    version: str
    license_name: str
    needed_by: str


def dependencies() -> list[Dependency]:
    """Return the packages that run with the project, sorted by name: its own dependencies and all of theirs."""
    needed_by: dict[str, list[str]] = {}
    queue = [(name, "direct") for name in _requirements(distribution(PROJECT), "")]
    for extra in EXTRAS:
        queue += [(name, f"extra {extra}") for name in _requirements(distribution(PROJECT), extra)]
    while queue:
        name, reason = queue.pop(0)
        reasons = needed_by.setdefault(name, [])
        if not reasons:
            queue += [(needed, name) for needed in _requirements(distribution(name), "")]
        if reason not in reasons:
            reasons.append(reason)
    return [_describe(name, reasons) for name, reasons in sorted(needed_by.items())]


def _requirements(package: Distribution, extra: str) -> list[str]:
    """Return the installed packages that a package needs on this platform: without extras, or only for one extra."""
    found: list[str] = []
    for line in package.requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        plain = marker is None or marker.evaluate({"extra": ""})
        if plain if not extra else not plain and marker is not None and marker.evaluate({"extra": extra}):
            found.append(canonicalize_name(requirement.name))
            found += _of_extras(requirement)
    return [name for name in found if _is_installed(name)]


def _of_extras(requirement: Requirement) -> list[str]:
    """Return the packages that the extras of a requirement such as `package[extra]` add."""
    if not requirement.extras or not _is_installed(requirement.name):
        return []
    return [name for extra in requirement.extras for name in _requirements(distribution(requirement.name), extra)]


def _is_installed(name: str) -> bool:
    # Markers cannot express all conditions: a CPU build of torch needs no CUDA. A package that is absent is not used.
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _describe(name: str, reasons: list[str]) -> Dependency:
    package = distribution(name)
    ours = [reason for reason in reasons if reason.split()[0] in ("direct", "extra")]
    return Dependency(name, package.version, _license_of(package), ", ".join(ours or sorted(reasons)))


def _license_of(package: Distribution) -> str:
    """Return the SPDX expression in the metadata; else the license classifiers; else the first line of the field."""
    # importlib declares a smaller type than it returns.
    metadata = cast("Message", package.metadata)
    expression = metadata.get("License-Expression")
    classifiers = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier", []) if line.startswith("License")]
    field = (metadata.get("License") or "").strip().splitlines()
    found = expression or ", ".join(classifiers) or (field[0] if field else "")
    # A vertical bar would end the table cell.
    return found.replace("|", "/") or "?"


def table() -> str:
    """Return the table in Markdown."""
    rows = [f"| {d.name} | {d.version} | {d.license_name} | {d.needed_by} |" for d in dependencies()]
    return "\n".join(["| package | version | license | needed by |", "| --- | --- | --- | --- |", *rows]) + "\n"


def write_page() -> None:
    """Write the table between the two marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: BEGIN + table() + END, text), encoding="utf-8")


if __name__ == "__main__":
    write_page()
