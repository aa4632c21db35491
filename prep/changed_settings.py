"""Say which settings differ between two plans of a build."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

SHOWN = 4
"""Number of settings that a message names."""


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Name the settings that differ, with both values; the name of a nested setting starts with its group's name."""
    changed = list(_changes(before, after))
    more = [f"{len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
    return "; ".join(changed[:SHOWN] + more)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _changes(cast("dict[str, Any]", was), cast("dict[str, Any]", now), f"{prefix}{key}.")
        elif was != now:
            yield f"{prefix}{key} was {_shown(before.get(key))} and is now {_shown(after.get(key))}"


def _shown(value: object) -> str:
    return "none" if value is None else reprlib.repr(value)
