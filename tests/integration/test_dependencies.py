"""The license table lists all packages that run, and the package built from source is pinned by its hash."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from docs.licenses import BEGIN, END, PAGE, dependencies, table

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _listed() -> dict[str, list[str]]:
    rows = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name: rest for name, *rest in cells}


def test_table_lists_all_declared_dependencies() -> None:
    lines = [*PROJECT["dependencies"]]
    for extra in ("dask", "lora", "s3", "slides", "small"):
        lines += PROJECT["optional-dependencies"][extra]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    own = {name for name, row in _listed().items() if row[-1].startswith(("direct", "extra"))}
    assert own == declared


def test_table_lists_all_installed_dependencies() -> None:
    listed, installed = _listed(), {found.name: found for found in dependencies()}
    if installed["zarr"].version != listed["zarr"][0]:
        pytest.skip("the installed zarr is not the table's version, and other versions need other packages")
    assert len(installed) > 60
    assert installed.keys() <= listed.keys()
    # If the pinned version of a package is installed, its license is the one in the table.
    for name, found in installed.items():
        version, license_name, _ = listed[name]
        assert version != found.version or license_name == found.license_name
    assert table().count("\n") == len(installed) + 2


def test_table_has_the_pinned_versions() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pinned: dict[str, str] = {canonicalize_name(name): version for name, version in pins.items()}
    wrong = {name: row[0] for name, row in _listed().items() if pinned.get(name, row[0]) != row[0]}
    assert not wrong, "run `make licenses`"


def test_oldest_versions_are_the_lower_bounds() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints-oldest.txt").read_text(), re.MULTILINE))
    oldest: dict[str, str] = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name in extras if name != "tools" for line in extras[name])]
    bounds: dict[str, SpecifierSet] = {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}
    # The oldest versions do not include the browser, so the test of the report is skipped.
    assert oldest.keys() == bounds.keys() - {"playwright"}
    for name, version in oldest.items():
        (bound,) = bounds[name]
        # A bound of 4.9 is tested with a build of that version, 4.9.0.80.
        assert f"{version}.".startswith(f"{bound.version}."), name


def test_source_distribution_is_pinned_by_its_hash() -> None:
    text = (ROOT / "requirements-sam2.txt").read_text()
    (pin,) = re.findall(r"^(sam2==\S+) --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert pin in PROJECT["dependencies"]
    assert pin in (ROOT / "constraints.txt").read_text().splitlines()
    assert "--require-hashes --requirement requirements-sam2.txt" in (ROOT / "Makefile").read_text()
