"""README, tutorial and reference run as they stand, and what the reference lists is what the programs have.

The how-to pages have a file of their own, so that both run side by side.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs import command_line
from schemas.store.store import Store
from tests.integration.pages import PAGES, ROOT, Prepared, blocks, prepare_folder, run_page
from train.backbone.sam2 import NANO_OVERRIDES
from train.config import FitConfig, setting_keys
from train.recipes import RECIPES


def test_python_of_the_readme_runs(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bcss.zarr").symlink_to(store.path)
    monkeypatch.chdir(tmp_path)
    found = blocks("README.md", "python")
    assert found
    for _, block in found:
        exec(compile(block, "README", "exec"), {})


@pytest.fixture(scope="module")
def prepared(module_path: Path) -> Iterator[Prepared]:
    with prepare_folder(module_path) as prepared:
        yield prepared


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if "how-to" not in page and blocks(page, "bash|python")])
def test_page_runs(page: str, prepared: Prepared, tmp_path: Path) -> None:
    run_page(page, prepared, tmp_path)


def test_every_flag_that_is_shown_exists() -> None:
    from typer.main import get_command

    import prep.cli
    import train.cli

    known: dict[str, set[str]] = {}
    for program, app in (("bcss-prep", prep.cli.app), ("bcss-train", train.cli.app)):
        group = get_command(app)
        for name, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
            known[f"{program} {name}"] = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    texts = [text for page in PAGES for _, text in blocks(page, "bash|sh")]
    shown = re.findall(r"(bcss-(?:prep|train) \w+)([^\n`#]*)", "\n".join(texts))
    assert len(shown) >= 20
    for command, rest in shown:
        assert command in known
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in known[command], f"{command} {flag}"


def test_every_link_leads_to_a_file() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8")):
            if "://" not in target:
                assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links {target}"


def test_settings_of_the_reference_are_those_of_the_program() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", page, re.MULTILINE))
    assert sorted(listed) == sorted(setting_keys())
    for key, shown in listed.items():
        value: Any = FitConfig()
        for part in key.split("."):
            value = getattr(value, part)
        assert json.loads(shown) == (list(value) if isinstance(value, tuple) else value), key


NOT_SET = "\u2013"
"""The dash of a setting that a recipe leaves at its default."""


def test_recipes_of_the_reference_are_those_of_the_program() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    head = re.search(r"^\| key \| `(\w+)` \| `(\w+)` \| `(\w+)` \|$", page, re.MULTILINE)
    rows = re.findall(r"^\| `([\w.]+)` \| ([^`|]+) \| ([^`|]+) \| ([^`|]+) \|$", page, re.MULTILINE)
    assert head is not None
    assert head.groups() == tuple(RECIPES)
    for column, (name, settings) in enumerate(RECIPES.items(), start=1):
        listed = {row[0]: row[column] for row in rows if row[column] != NOT_SET}
        assert listed.keys() == settings.keys(), name
        config = FitConfig.model_validate({"recipe": name}).model_dump()
        for key, shown in listed.items():
            value: Any = config
            for part in key.split("."):
                value = value[part]
            assert value == (shown if isinstance(value, str) else float(shown)), f"{name} {key}"


def test_commands_of_the_reference_are_those_of_the_programs() -> None:
    assert command_line.PAGE.read_text(encoding="utf-8") == command_line.page(), "run `python -m docs.command_line`"


def test_overrides_of_nano_are_listed() -> None:
    page = (ROOT / "docs/how-to/use.md").read_text(encoding="utf-8")
    assert re.findall(r"^\+\+model.*$", page, re.MULTILINE) == list(NANO_OVERRIDES)
