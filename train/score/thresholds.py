"""Choose the threshold of mask logits: one number for all models, or a tuned one for each model and prompt kind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError
from schemas.prompt_kinds import PromptKind
from schemas.record import Record
from schemas.store.store import Store
from train.model.predictor import MaskPredictor
from train.score.answers import score_tiles, tiles_with_objects
from train.score.metrics import score_masks
from train.score.protocol import ScoringProtocol
from train.score.score_table import ScoreTable
from train.score.scored_once import ScoredOnce
from train.score.tile_answer import ScoredAnswer
from train.statistics.estimate import class_mean

CANDIDATE_THRESHOLDS = tuple(sorted(np.linspace(-3, 3, 25).tolist(), key=abs))
"""Logits that the tuning tries, nearest to 0 first: among equally good ones, the one nearest to 0 is chosen."""


def with_thresholds(
    wanted: str, store: Store, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol, workers: int = 1
) -> ScoringProtocol:
    """Return the protocol with a threshold for each model and prompt kind.

    Args:
        wanted: A logit for all of them, or `val` to choose for each the logit with the highest class mean of
            Dice on that split.
        store: The store with the validation tiles.
        predictors: The models by name.
        protocol: The protocol that the models are scored under.
        workers: Number of threads that read tiles ahead.

    Raises:
        ConfigError: `wanted` is neither a number nor `val`, or the scored split contains the validation split.
        StoreError: The validation split has no objects.
    """
    if wanted != "val":
        value = _parsed(wanted)
        return replace(protocol, thresholds={(name, kind): value for name in predictors for kind in protocol.kinds})
    if protocol.split in ("val", "all"):
        raise ConfigError(
            "--threshold val",
            f"cannot tune the threshold on the split that is being scored, {protocol.split!r}",
            "score --split test",
        )
    return replace(protocol, thresholds=_tuned(store, predictors, protocol, workers))


def _parsed(wanted: str) -> float:
    try:
        value = float(wanted)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"--threshold {wanted}", "is neither a number nor val", "SAM 2 itself uses 0")
    return value


def _tuned(
    store: Store, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol, workers: int
) -> dict[tuple[str, PromptKind], float]:
    """Find the candidate with the highest class mean of validation Dice, for each model and prompt kind."""
    tiles: list[int] = tiles_with_objects(store, "val").tolist()
    asked = replace(protocol, split="val", baselines=(), corrections=0, jitter=(), tolerance_um=None)
    once = ScoredOnce(store, tiles)
    found: dict[tuple[str, PromptKind], _ObjectDice] = {}
    for scored in score_tiles(store, tiles, predictors, asked, workers):
        key = (scored.answer.model, scored.answer.question.kind)
        found.setdefault(key, _ObjectDice()).add(scored, once.counted(scored.record))
    return {key: float(CANDIDATE_THRESHOLDS[int(dice.class_means().argmax())]) for key, dice in found.items()}


@dataclass
class _ObjectDice:
    """Dice of the scored objects under each candidate threshold, one array and one table of scores for each answer."""

    dice: list[NDArray[np.float64]] = field(default_factory=list[NDArray[np.float64]])
    tables: list[ScoreTable] = field(default_factory=list[ScoreTable])

    def add(self, scored: ScoredAnswer, counted: Record) -> None:
        """Add the scored objects of an answer; `counted` ignores the pixels that other tiles score."""
        prediction, size = scored.answer.prediction, scored.answer.question.size_px
        assert prediction is not None
        kept = np.isin(counted.object_ids, scored.scores.object_id)
        masks = (prediction.masks(size, threshold) for threshold in CANDIDATE_THRESHOLDS)
        self.dice.append(np.array([score_masks(each, counted.segments, counted.ignore).dice[kept] for each in masks]))
        self.tables.append(scored.scores)

    def class_means(self) -> NDArray[np.float64]:
        """Return the class mean of Dice under each candidate threshold, the number that an evaluation reports."""
        patients = np.concatenate([table.patient for table in self.tables])
        classes = np.concatenate([table.class_id for table in self.tables])
        return np.array([class_mean(values, patients, classes).value for values in np.concatenate(self.dice, axis=1)])
