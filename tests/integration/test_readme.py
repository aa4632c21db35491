"""What README and docs show is run as it stands there: Python, and each command of a `bash` block.

Blocks marked `sh` need a cluster, a bucket or a download; their flags are checked.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.store.store import Store

ROOT = Path(__file__).parents[2]


PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("prepare", "python", "train", "evaluate", "reliability", "dependencies")),
]


def _blocks(page: str, languages: str) -> list[tuple[str, str]]:
    return re.findall(rf"```({languages})\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_every_page_is_here() -> None:
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= {Path(page).name for page in PAGES}


def test_python_of_the_readme_runs(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bcss.zarr").symlink_to(store.path)
    monkeypatch.chdir(tmp_path)
    blocks = _blocks("README.md", "python")
    assert blocks
    for _, block in blocks:
        exec(compile(block, "README", "exec"), {})


@pytest.mark.timeout(600)
def test_docs_run_from_the_first_page_to_the_last(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(ROOT),
    }
    for page in PAGES[1:]:
        for language, block in _blocks(page, "bash|python"):
            shell = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
            done = subprocess.run([*shell, block], cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{page}:\n{block}\n{done.stderr[-2000:]}"


def test_every_flag_that_is_shown_exists() -> None:
    from typer.main import get_command

    import prep.cli
    import train.cli

    known: dict[str, set[str]] = {}
    for program, app in (("bcss-prep", prep.cli.app), ("bcss-train", train.cli.app)):
        group = get_command(app)
        for name, command in group.commands.items():  # pyright: ignore[reportAttributeAccessIssue]
            known[f"{program} {name}"] = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    texts = [text for page in PAGES for _, text in _blocks(page, "bash|sh")]
    shown = re.findall(r"(bcss-(?:prep|train) \w+)([^\n`#]*)", "\n".join(texts))
    assert len(shown) >= 20
    for command, rest in shown:
        assert command in known
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in known[command], f"{command} {flag}"
