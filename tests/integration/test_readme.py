"""What the README shows is run as it stands there."""

import re
from pathlib import Path

import pytest

from schemas.store import Store

ROOT = Path(__file__).parents[2]


def _blocks(language: str) -> list[str]:
    text = "".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_python_lines_run(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bcss.zarr").symlink_to(store.path)
    monkeypatch.chdir(tmp_path)
    blocks = _blocks("python")
    assert blocks
    for block in blocks:
        exec(compile(block, "README", "exec"), {})


def test_every_flag_that_is_shown_exists() -> None:
    from typer.main import get_command

    import prep.cli
    import train.cli

    known: dict[str, set[str]] = {}
    for program, app in (("bcss-prep", prep.cli.app), ("bcss-train", train.cli.app)):
        group = get_command(app)
        for name, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
            known[f"{program} {name}"] = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    shown = re.findall(r"(bcss-(?:prep|train) \w+)([^\n`#]*)", "\n".join(_blocks("bash")))
    assert len(shown) >= 4
    for command, rest in shown:
        assert command in known
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in known[command], f"{command} {flag}"
