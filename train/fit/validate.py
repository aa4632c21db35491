"""Validation within a run: the scorer of `evaluate`, tiles shared between processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.store.store import Store
from train.config import FitConfig
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.runtime.distributed import World
from train.score.answers import score_tiles
from train.score.overlay_panels import OverlayPanels
from train.score.protocol import ScoringProtocol
from train.score.tables import gather_scores, merge_tables, summarize

MODEL = "model"
"""Name of the trained model among the scores."""


def validate(
    model: PromptableSam,
    store: Store,
    tiles: NDArray[np.int64],
    config: FitConfig,
    world: World,
    device: torch.device,
) -> tuple[dict[str, Any], float, list[NDArray[np.uint8]]]:
    """Score the validation tiles as `evaluate` does.

    Args:
        model: What is scored.
        store: The store.
        tiles: Indices of the validation tiles.
        config: Says the prompt kinds and what `best.pt` is chosen by.
        world: Each process scores its share.
        device: Where the model is.

    Returns:
        Scores by prompt kind; the mean over objects and kinds of Dice or IoU; and overlays of the first tiles.
    """
    protocol = ScoringProtocol("val", config.prompt_kinds, config.negatives, baselines=())
    panels = OverlayPanels(store, tiles.tolist(), MODEL, protocol.kinds[0], side_px=256)
    mine: list[int] = tiles[world.rank :: world.size].tolist()
    scored = score_tiles(store, mine, {MODEL: MaskPredictor(model, device)}, protocol)
    gathered = world.gather((gather_scores(scored, [panels]), panels.pictures))
    tables = merge_tables([part for part, _ in gathered])
    scores = [getattr(table, config.best_by) for table in tables[MODEL].values()]
    summary = summarize(tables, store)[MODEL]
    return summary, float(np.mean([np.mean(score) for score in scores])), [p for _, part in gathered for p in part]
