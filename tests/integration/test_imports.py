"""The two stages share only the schemas, and the sub-packages have no import cycles.

A room is a sub-package, or a module directly inside a stage."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {"schemas": {"schemas"}, "prep": {"schemas", "prep"}, "train": {"schemas", "train"}}
OTHERS = ("tests", "benchmarks", "docs")
MAX_MODULES = 18
PRIVATE_NAME = re.compile(r"\w+(\.\w+)*\._(?!_)\w+")
"""A private name below a module or class, in code or as `monkeypatch.setattr` takes it."""


def _modules() -> dict[str, Path]:
    """Return the paths of all modules by dotted name; a package stands for its `__init__`."""
    paths = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return dict(zip(names, paths, strict=True))


@cache
def _imported(path: Path) -> set[str]:
    """Return the names that a file imports: modules, and what is taken from them, which may be modules too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _room(module: str) -> str:
    """Return the room of a module."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_stages_share_only_the_schemas(package: str) -> None:
    paths = [path for name, path in _modules().items() if name.split(".")[0] == package]
    assert len(paths) > 20
    for path in paths:
        packages = {name.split(".")[0] for name in _imported(path)}
        assert packages & MAY_IMPORT.keys() <= MAY_IMPORT[package], path
        assert package == "train" or not packages & {"torch", "sam2", "torchvision"}, path


def test_nothing_imports_a_command_line() -> None:
    for name, path in _modules().items():
        assert not _imported(path) & {"prep.cli", "train.cli"}, name
        for stage in ("prep", "train"):
            if name != f"{stage}.cli" and not name.startswith(f"{stage}.command"):
                assert not any(imported.startswith(f"{stage}.command") for imported in _imported(path)), name


@cache
def _graph() -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    modules = _modules()
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        rooms = {_room(other) for other in _imported(path) & modules.keys()}
        graph.setdefault(_room(name), set()).update(rooms - {_room(name)})
    return graph


def _below(graph: dict[str, set[str]], rooms: set[str]) -> set[str]:
    """Return the rooms, and those that they import, directly or not."""
    found: set[str] = set()
    while new := rooms - found:
        found |= new
        rooms = {other for room in new for other in graph[room]}
    return found


def _sentences() -> dict[str, str]:
    """Return what the docstring of each sub-package says about it."""
    modules = {name: path for name, path in _modules().items() if path.name == "__init__.py" and "." in name}
    return {name: ast.get_docstring(ast.parse(path.read_text())) or "" for name, path in modules.items()}


def test_rooms_have_no_import_cycle() -> None:
    graph = _graph()
    assert len(graph) > 30
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these rooms import each other: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("room", sorted(_sentences()))
def test_sentence_of_a_room_says_what_it_imports(room: str) -> None:
    graph, stage = _graph(), room.split(".")[0]
    imported = {other for other in graph[room] if other.startswith(f"{stage}.")}
    what, said = _sentences()[room].rsplit("; imports ", 1)
    assert what
    if said == f"all of `{stage}`.":
        return
    names = [] if said == f"nothing from `{stage}`." else re.findall(r"`([\w.]+)`", said)
    named = {name if name.startswith(f"{stage}.") else f"{stage}.{name}" for name in names}
    assert named <= imported
    assert imported <= (_below(graph, named) if said.endswith(" and below.") else named)


def test_table_of_rooms_repeats_their_sentences() -> None:
    rows = re.findall(r"^\| `(\w+)/(\w+)/` \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert {f"{stage}.{name}": sentence for stage, name, sentence in rows} == _sentences()


def test_rooms_are_two_levels_deep_and_not_too_full() -> None:
    count: dict[str, int] = {}
    for name, path in _modules().items():
        assert len(name.split(".")) <= 3, name
        folder = path.parent.relative_to(ROOT).as_posix()
        count[folder] = count.get(folder, 0) + 1
    assert {folder: found for folder, found in count.items() if found > MAX_MODULES} == {}


@pytest.mark.parametrize("stage", sorted(MAY_IMPORT))
def test_tests_have_the_folders_of_the_packages(stage: str) -> None:
    modules = [path.relative_to(ROOT) for path in (ROOT / stage).rglob("*.py")]
    tests = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests" / stage).rglob("test_*.py")]
    assert {path.parent for path in modules} == {path.parent for path in tests}
    folders_of: dict[str, set[Path]] = {}
    for path in modules:
        folders_of.setdefault(path.stem, set()).add(path.parent)
    for path in tests:
        # A test file that is named after a module stands where the module does; others test several modules.
        folders = folders_of.get(path.stem.removeprefix("test_"), {path.parent})
        assert path.parent in folders, f"tests/{path} tests a module of {folders}"


def test_nothing_takes_a_private_name_from_another_module() -> None:
    for path in [*_modules().values(), *(p for name in OTHERS for p in sorted((ROOT / name).rglob("*.py")))]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imports = [node for node in nodes if _is_of_us(node)]
        aliases = [alias for node in imports for alias in node.names]
        own = {(alias.asname or alias.name).split(".")[0] for alias in aliases}
        used = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
        private = [alias.name for alias in aliases if alias.name.startswith("_")]
        private += [name for name in used if name.split(".")[0] in own and PRIVATE_NAME.fullmatch(name)]
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        private += [text for text in texts if text.split(".")[0] in MAY_IMPORT and PRIVATE_NAME.fullmatch(text)]
        assert not private, f"{path} uses {private}"


def _is_of_us(node: ast.AST) -> TypeGuard[ast.Import | ast.ImportFrom]:
    """Whether a node imports one of our modules, or something from them."""
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in (*MAY_IMPORT, *OTHERS)
    return isinstance(node, ast.Import) and any(alias.name.split(".")[0] in MAY_IMPORT for alias in node.names)
