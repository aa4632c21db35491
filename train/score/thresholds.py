"""Choose the threshold of mask logits: one number for all models, or a tuned one for each model and prompt kind."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.model.predictor import MaskPredictor
from train.score.answers import score_tiles, tiles_with_objects
from train.score.metrics import score_masks
from train.score.protocol import ScoringProtocol
from train.score.tile_answer import ScoredAnswer

CANDIDATE_THRESHOLDS = tuple(sorted(np.linspace(-3, 3, 25).tolist(), key=abs))
"""Logits that the tuning tries, nearest to 0 first: among equally good ones, the one nearest to 0 is chosen."""


def with_thresholds(
    wanted: str, store: Store, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol, workers: int = 1
) -> ScoringProtocol:
    """Return the protocol with a threshold for each model and prompt kind.

    Args:
        wanted: A logit for all of them, or `val` to choose for each the logit with the highest mean Dice on that split.
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
    """Find the candidate with the highest sum of Dice over the validation objects, for each model and prompt kind."""
    tiles: list[int] = tiles_with_objects(store, "val").tolist()
    asked = replace(protocol, split="val", baselines=(), corrections=0, jitter=(), tolerance_um=None)
    sums: dict[tuple[str, PromptKind], NDArray[np.float64]] = {}
    for scored in score_tiles(store, tiles, predictors, asked, workers):
        key = (scored.answer.model, scored.answer.question.kind)
        sums[key] = sums.get(key, np.zeros(len(CANDIDATE_THRESHOLDS))) + _dice_sums(scored)
    return {key: float(CANDIDATE_THRESHOLDS[int(total.argmax())]) for key, total in sums.items()}


def _dice_sums(scored: ScoredAnswer) -> NDArray[np.float64]:
    """Sum Dice over the objects of one tile under each candidate threshold."""
    record, prediction, size = scored.record, scored.answer.prediction, scored.answer.question.size_px
    assert prediction is not None
    return np.array(
        [
            score_masks(prediction.masks(size, threshold), record.segments, record.ignore).dice.sum()
            for threshold in CANDIDATE_THRESHOLDS
        ]
    )
