"""Gather the scores of several models in tables, merge the tables of several processes, and summarize them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.score.score_table import ScoreTable
from train.score.tile_answer import ScoredAnswer

Tables = dict[str, dict[PromptKind, ScoreTable]]
"""One score table for each model and prompt kind: `tables[model][kind]`."""

_Parts = dict[str, dict[PromptKind, list[ScoreTable]]]


def gather_scores(scored: Iterable[ScoredAnswer], watchers: Iterable[Callable[[ScoredAnswer], None]] = ()) -> Tables:
    """Gather the scores of answers into one table for each model and prompt kind.

    Args:
        scored: The scored answers, which may be computed while they are gathered.
        watchers: Functions called with every answer.
    """
    watchers = tuple(watchers)
    parts: _Parts = {}
    for entry in scored:
        by_kind = parts.setdefault(entry.answer.model, {})
        by_kind.setdefault(entry.answer.question.kind, []).append(entry.scores)
        for watcher in watchers:
            watcher(entry)
    return _joined(parts)


def merge_tables(parts: Sequence[Tables]) -> Tables:
    """Join the tables of several processes."""
    gathered: _Parts = {}
    for part in parts:
        for model, by_kind in part.items():
            for kind, table in by_kind.items():
                gathered.setdefault(model, {}).setdefault(kind, []).append(table)
    return _joined(gathered)


def summarize(tables: Tables, store: Store) -> dict[str, dict[str, Any]]:
    """Compute means for each model, prompt kind and class.

    Returns:
        `{MODEL: {PROMPT: {"overall": {...}, "classes": {CLASS: {...}}}}}`; see `ScoreTable.summary`.
    """
    names = {info.code: info.name for info in store.manifest.classes}
    return {model: {kind: table.summary(names) for kind, table in by_kind.items()} for model, by_kind in tables.items()}


def _joined(parts: _Parts) -> Tables:
    return {model: {k: ScoreTable.joined(found) for k, found in by_kind.items()} for model, by_kind in parts.items()}
