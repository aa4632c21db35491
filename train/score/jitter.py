"""Move boxes and clicks as an imprecise person would, to measure how much the scores depend on exact prompts.

Axes: K points. Coordinates are x, y in pixels of the tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from schemas.points import Prompt
from schemas.prompt_kinds import PointLabel, PromptKind
from schemas.record import Record
from train.score.score_table import ScoreTable
from train.score.tables import Tables
from train.score.tile_answer import Question, ScoredAnswer
from train.statistics.estimate import FEW_PATIENTS, class_mean


def jittered(question: Question, record: Record, share: float) -> Question:
    """Return a question whose boxes and clicks are moved.

    Each side of a box moves by up to `share` of the box's size, inward or outward, and each click moves by up to that
    much along x and along y; all moves are drawn uniformly. A click may then miss its object. The draws depend only on
    the tile and the object, so they are the same for all models, prompt kinds and processes, and a larger share moves
    the same prompt farther in the same direction.

    Args:
        question: The question with exact prompts.
        record: The tile, with the same objects.
        share: Largest move as a share of the width and the height of the object's box.
    """
    side = question.size_px
    prompts: list[Prompt] = []
    for prompt, object_id, (left, top, right, bottom) in zip(
        question.prompts, record.object_ids.tolist(), record.boxes_xyxy.tolist(), strict=True
    ):
        generator = np.random.default_rng([question.index, object_id])
        size = np.array([right - left + 1, bottom - top + 1])
        moves = generator.uniform(-1, 1, prompt["point_coords"].shape) * share * size
        moved = np.rint(prompt["point_coords"] + moves).clip(0, side - 1)
        # The corners of a box of a few pixels may change places.
        is_corner = prompt["point_labels"] >= PointLabel.BOX_TOP_LEFT
        moved[is_corner] = np.sort(moved[is_corner], axis=0)
        prompts.append({**prompt, "point_coords": moved.astype(np.float32)})
    return replace(question, prompts=prompts, jitter=share)


class JitteredScores:
    """Keeps the scores under moved prompts apart from those under exact prompts."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, PromptKind, float], list[ScoreTable]] = {}

    def apart_from(self, scored: Iterable[ScoredAnswer]) -> Iterator[ScoredAnswer]:
        """Yield the answers to exact prompts, and keep the scores of the others."""
        for entry in scored:
            question = entry.answer.question
            if question.jitter:
                key = (entry.answer.model, question.kind, question.jitter)
                self._parts.setdefault(key, []).append(entry.scores)
            else:
                yield entry

    def summary(self, exact: Tables, class_names: dict[int, str]) -> dict[str, Any]:
        """Return `{MODEL: {PROMPT: {SHARE: {"overall", "classes", "change"}}}}`.

        Args:
            exact: The scores under exact prompts, of the same objects.
            class_names: Names of the classes by code.

        Returns:
            For each share the scores as in `models`; `change` is the class mean of the difference in Dice, moved minus
            exact prompts, with its 95 % interval over patients.
        """
        found: dict[str, Any] = {}
        for (model, kind, share), parts in self._parts.items():
            table = ScoreTable.joined(parts)
            change = class_mean(table.dice - exact[model][kind].dice, table.patient, table.class_id)
            found.setdefault(model, {}).setdefault(kind, {})[f"{share:g}"] = {
                **table.summary(class_names),
                "change": {
                    "value": change.value,
                    "ci95": change.interval(),
                    "patients": change.patients,
                    "few_patients": change.fewest < FEW_PATIENTS,
                },
            }
        return found
