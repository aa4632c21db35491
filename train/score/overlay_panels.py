"""Draw pictures of a few tiles with the masks of one model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.overlay import Overlay
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.score.tile_answer import ScoredAnswer

PANELS = 8


class OverlayPanels:
    """Draws the answers of one model and prompt kind on tiles that are spread evenly over a split.

    Call it with every answer. It draws some of them and keeps their pictures.

    Args:
        store: The store, which gives the colors of the classes.
        tiles: Indices of all tiles that are scored; the same tiles give the same choice for every model.
        model: Name of the model whose masks are drawn.
        kind: Prompt kind whose masks are drawn.
        side_px: Side of each picture in pixels.

    Attributes:
        pictures: uint8 (side_px, side_px, 3), one for each tile drawn so far.
        captions: For each picture its model, prompt kind and tile, and the mean Dice of the objects scored there.
    """

    def __init__(self, store: Store, tiles: Sequence[int], model: str, kind: PromptKind, side_px: int = 512) -> None:
        self.pictures: list[NDArray[np.uint8]] = []
        self.captions: list[str] = []
        self._dice: list[float] = []
        self._tiles = {tiles[number * len(tiles) // PANELS] for number in range(PANELS)}
        self._drawn = (model, kind)
        self._colors = {info.code: info.color for info in store.manifest.classes}
        self._side_px = side_px
        self._open: Overlay | None = None

    def __call__(self, scored: ScoredAnswer) -> None:
        """Draw one answer, if it is for a chosen tile and comes from the model and prompt kind that are drawn."""
        answer, question = scored.answer, scored.answer.question
        if question.index not in self._tiles or (answer.model, question.kind) != self._drawn:
            return
        overlay = self._open or Overlay(scored.record, self._colors, self._side_px)
        overlay.add(scored.record, question.prompts, answer.masks)
        self._dice += scored.scores.dice.tolist()
        self._open = overlay if question.more_follow else None
        if self._open is None:
            self.pictures.append(overlay.picture())
            x, y = question.origin_xy
            dice = f"Dice {np.mean(self._dice):.3f}" if self._dice else "no object is scored here"
            self.captions.append(f"{answer.model}, {question.kind}; {question.frame_id} at {x}, {y}; {dice}")
            self._dice = []
