"""The stages share the store's schema and nothing else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {"schemas": {"schemas"}, "prep": {"schemas", "prep"}, "train": {"schemas", "train"}}


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_stages_meet_in_the_schema_alone(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 20
    for path in files:
        ours = {name.split(".")[0] for name in _imported(path)} & MAY_IMPORT.keys()
        assert ours <= MAY_IMPORT[package], path
        heavy = {name.split(".")[0] for name in _imported(path)} & {"torch", "sam2", "torchvision"}
        assert package == "train" or not heavy, path


@pytest.mark.parametrize("package", ["prep", "train"])
def test_nothing_imports_a_command_line(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert f"{package}.cli" not in _imported(path), path
