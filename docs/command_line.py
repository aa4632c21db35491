"""Write `docs/reference/command-line.md` from the two programs: `python -m docs.command_line`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typer.main import get_command

import prep.cli
import train.cli

PAGE = Path(__file__).with_name("reference") / "command-line.md"

HEAD = """# Command line

Every command with its arguments and flags, in the words of `--help`. `python -m docs.command_line` writes this page,
and a test compares it with the programs.

Two flags may stand anywhere on the command line of both programs: `--debug` adds tracebacks and the time of each stage,
and `--log-json` makes each line on stderr one JSON object and shows no progress bar. `--version` prints the version.
The exit status is 0 for success, 1 for an expected failure, which is one message on stderr with a
line for each problem, and 2 for a wrong call.
"""


def page() -> str:
    """Return the whole page in Markdown."""
    parts = [HEAD]
    for program, app in (("bcss-prep", prep.cli.app), ("bcss-train", train.cli.app)):
        group: Any = get_command(app)
        functions = {info.callback.__name__: info.callback for info in app.registered_commands if info.callback}
        for name, command in group.commands.items():
            hints = get_type_hints(functions[name])
            rows = [
                f"| {_name(p)} | {_values(p, hints[p.name])} | {_default(p)} | {_cell(p.help)} |"
                for p in command.params
                if p.name in hints
            ]
            table = ["| flag | values | default | meaning |", "| --- | --- | --- | --- |", *rows]
            summary = command.help.split("\n\n")[0].replace("\n", " ")
            parts.append(f"\n## `{program} {name}`\n\n{summary}\n\n" + "\n".join(table) + "\n")
    return "".join(parts)


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))


def _values(parameter: Any, hint: Any) -> str:
    """The values that a parameter takes: its choices, or the kind of value."""
    if parameter.param_type_name == "option" and parameter.is_flag:
        return ""
    kinds = list(_leaves(hint))
    choices = parameter.metavar.split("|") if parameter.metavar else [kind for kind in kinds if isinstance(kind, str)]
    if len(choices) > 1:
        return ", ".join(f"`{choice}`" for choice in choices)
    if parameter.metavar:
        return f"`{parameter.metavar}`"
    return {int: "integer", float: "number", str: "text", Path: "path"}[kinds[0]]


def _leaves(hint: Any) -> Iterator[Any]:
    """The types in a hint such as `list[Path] | None`, and the choices of a `Literal`."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        yield from parts
    elif parts:
        yield from (leaf for part in parts for leaf in _leaves(part))
    elif hint is not type(None):
        yield hint


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    # A flag of `fit` has no value unless it is given; it shows the default of its setting.
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    if parameter.is_flag:
        return "on" if shown is True or f"--{shown}" in parameter.opts else "off"
    return "" if shown is None else f"`{shown}`"


def _cell(text: str) -> str:
    # A vertical bar would end the cell.
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
