"""Lay out the `--help` of a command: flags in groups, defaults in plain words, examples at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

OTHER = "Other"
"""The group of flags that no table lists, such as --help."""


def plain_help(groups: Mapping[str, Sequence[str]]) -> type[TyperCommand]:
    """Return the class of a command whose `--help` shows its flags in groups.

    Args:
        groups: Names of the parameters in each group, in the order of the page; see `group_of`.
    """

    class PlainHelp(TyperCommand):
        """Changes how parameters are shown when help is asked for; the process ends after that."""

        def format_help(self, ctx: Any, formatter: Any) -> None:
            for parameter in self.params:
                if parameter.param_type_name == "option":
                    _show_plainly(parameter, group_of(str(parameter.name), groups))
            order = [*groups, OTHER]
            self.params.sort(key=lambda parameter: order.index(getattr(parameter, "rich_help_panel", None) or OTHER))
            super().format_help(ctx, formatter)

    return PlainHelp


def group_of(name: str, groups: Mapping[str, Sequence[str]]) -> str:
    """Return the group of a parameter."""
    return next((group for group, names in groups.items() if name in names), OTHER)


def examples(*commands: str) -> str:
    """Return the text that stands at the end of `--help`; each command is a paragraph, so that lines stay apart."""
    return "\n\n".join(["Examples:", *commands])


def _show_plainly(parameter: Any, group: str) -> None:
    """Set the group of a flag, and put its default into its text, in words."""
    parameter.rich_help_panel = group
    if parameter.is_flag:
        parameter.metavar = ""
    said = parameter.show_default if isinstance(parameter.show_default, str) else None
    is_shown = parameter.show_default is True or (parameter.show_default is None and not parameter.required)
    if said is None and is_shown and parameter.default not in (None, "", ()) and not callable(parameter.default):
        if not parameter.is_flag:
            said = str(parameter.default)
        elif parameter.secondary_opts:
            said = "on" if parameter.default else "off"
    if parameter.is_flag and said in {flag.lstrip("-") for flag in (*parameter.opts, *parameter.secondary_opts)}:
        said = "on" if f"--{said}" in parameter.opts else "off"
    parameter.show_default = False
    text = (parameter.help or "").rstrip(".")
    if parameter.is_flag and parameter.secondary_opts:
        # Beside each other, two long names would leave no room for the text, and be cut off.
        text += f"; {parameter.secondary_opts[0]} turns it off"
        parameter.secondary_opts = []
    parameter.help = f"{text}." + (f" Default: {said}." if said else "")


def register(app: typer.Typer, function: Any, groups: Mapping[str, Sequence[str]], *commands: str) -> None:
    """Add a command to a program, with grouped flags and examples."""
    app.command(cls=plain_help(groups), epilog=examples(*commands))(function)
