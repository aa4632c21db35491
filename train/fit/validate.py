"""Validate a run with the scorer of `evaluate`; the processes share the tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.config import FitConfig
from train.model.predictor import MaskPredictor, evaluating
from train.model.promptable import PromptableSam
from train.runtime.distributed import World
from train.score.answers import score_tiles
from train.score.overlay_panels import OverlayPanels
from train.score.protocol import ScoringProtocol
from train.score.score_table import ScoreTable
from train.score.tables import gather_scores, merge_tables, summarize
from train.score.tile_answer import ScoredAnswer

OnTile = Callable[[str, int, int], None]
"""Function that is told what is being done ("validate", "report", "score"), and how many tiles are done of how many."""

MODEL = "model"
"""Name of the trained model among the scores."""


@dataclass(frozen=True)
class Validation:
    """The scores of one model on the validation tiles.

    Attributes:
        scores: Scores by prompt kind, as in `metrics.json`.
        tables: Scores of every object, by prompt kind.
        panels: Overlays of the first tiles, uint8 (H, W, 3) each.
    """

    scores: dict[str, Any]
    tables: dict[PromptKind, ScoreTable]
    panels: list[NDArray[np.uint8]]

    def score(self, measure: str, *, by_objects: bool = False) -> float:
        """Return the score that chooses `best.pt`: the mean over the prompt kinds.

        Args:
            measure: `dice` or `iou`.
            by_objects: Whether every object counts alike; otherwise it is the class mean.
        """
        return float(np.mean([score_of(means, measure, by_objects=by_objects) for means in self.scores.values()]))


def score_of(means: dict[str, Any], measure: str, *, by_objects: bool = False) -> float:
    """Return the score of one prompt kind; see `Validation.score`."""
    overall = means["overall"]
    return float(overall[measure] if by_objects else overall["class_mean"][measure]["value"])


def validate(
    model: PromptableSam,
    store: Store,
    tiles: NDArray[np.int64],
    config: FitConfig,
    world: World,
    device: torch.device,
    on_tile: OnTile | None = None,
) -> Validation:
    """Score the validation tiles as `evaluate` does.

    Args:
        model: The model to score.
        store: The store.
        tiles: int64 (V,), indices of the validation tiles.
        config: Settings of the run, which say the prompt kinds.
        world: Each process scores its share.
        device: Device of the model.
        on_tile: Function called after each tile of this process.
    """
    protocol = ScoringProtocol("val", config.prompt_kinds, config.negatives, baselines=())
    panels = OverlayPanels(store, tiles.tolist(), [MODEL], protocol.kinds[0], side_px=256)
    mine: list[int] = tiles[world.rank :: world.size].tolist()
    scored = score_tiles(store, mine, {MODEL: MaskPredictor(model, device)}, protocol)
    if on_tile is not None:
        scored = _told(scored, len(mine), on_tile)
    with evaluating(model):
        own = gather_scores(scored, [panels])
    gathered = world.gather((own, panels.pictures))
    tables = merge_tables([part for part, _ in gathered])
    pictures = [picture for _, part in gathered for picture in part]
    return Validation(summarize(tables, store)[MODEL], tables[MODEL], pictures)


def _told(scored: Iterator[ScoredAnswer], tiles: int, on_tile: OnTile) -> Iterator[ScoredAnswer]:
    """Pass answers on, and tell after each tile that it is done."""
    done, index = 0, None
    for answer in scored:
        if index is not None and answer.record.index != index:
            done += 1
            on_tile("validate", done, tiles)
        index = answer.record.index
        yield answer
    on_tile("validate", tiles, tiles)
