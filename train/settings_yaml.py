"""Read a YAML file of settings, without what makes YAML unsafe: other types, aliases, and keys that occur twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from schemas.errors import ConfigError
from schemas.text_file import read_text_file

MAX_YAML_BYTES = 1 << 18
"""Largest settings file. All settings take 2 KB, and the YAML reader, written in Python, needs seconds for 200 KB."""


class _PlainLoader(yaml.SafeLoader):
    """Reads YAML without aliases: nine lines, each with nine aliases of the line before, would fill any memory."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, which settings may not use")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that occurs twice, because YAML would drop its first value."""
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            line = next(key.start_mark.line + 1 for key, _ in reversed(node.value) if key.value == twice[0])
            raise yaml.YAMLError(f"the key {twice[0]} occurs twice, again in line {line}")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the settings of a file by key; groups are dictionaries.

    Raises:
        ConfigError: The file cannot be read, is too large, or is not a YAML mapping.
    """
    text = read_text_file(path, "write `key: value` lines", MAX_YAML_BYTES)
    try:
        # This loader is a SafeLoader: it makes only plain values, and never an object that a tag names.
        content = yaml.load(text, _PlainLoader)
    except Exception as error:
        # PyYAML's constructors of numbers and dates raise many types: KeyError, AttributeError and more.
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(path, f"is not a YAML file ({first})", "write `key: value` lines") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(path, "is not a mapping", "write `key: value` lines")
    return cast("dict[str, Any]", content or {})
