"""Draw pictures of a few tiles with the masks of one model, beside those of its start."""

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
    """Draws the answers to one prompt kind on tiles that are spread evenly over a split.

    Call it with every answer. It draws some of them and keeps their pictures.

    Args:
        store: The store, which gives the colors of the classes.
        tiles: Indices of all tiles that are scored; the same tiles give the same choice for every model.
        models: Name of the model whose masks are drawn, and of its start, whose answer to a tile comes later. Without
            a start, only the model is drawn.
        kind: Prompt kind whose masks are drawn.
        side_px: Side of each picture in pixels.

    Attributes:
        pictures: uint8 (side_px, side_px, 3); for each tile drawn so far that of the start, then that of the model.
        captions: For each picture its model, prompt kind, the mean Dice of the objects scored there, and the tile.
    """

    def __init__(
        self, store: Store, tiles: Sequence[int], models: list[str], kind: PromptKind, side_px: int = 512
    ) -> None:
        self.pictures: list[NDArray[np.uint8]] = []
        self.captions: list[str] = []
        self._tiles = {tiles[number * len(tiles) // PANELS] for number in range(PANELS)}
        self._models = models
        self._kind = kind
        self._colors = {info.code: info.color for info in store.manifest.classes}
        self._side_px = side_px
        # A tile with many objects is answered in parts. Until the last one, its picture is open.
        self._open: dict[str, tuple[Overlay, list[float]]] = {}

    def __call__(self, scored: ScoredAnswer) -> None:
        """Draw one answer, if it is for a chosen tile and comes from a model and the prompt kind that are drawn."""
        answer, question = scored.answer, scored.answer.question
        if question.index not in self._tiles or answer.model not in self._models or question.kind != self._kind:
            return
        begun = self._open.pop(answer.model, None)
        overlay, dice = begun or (Overlay(scored.record, self._colors, self._side_px), [])
        overlay.add(scored.record, question.prompts, answer.masks)
        dice += scored.scores.dice.tolist()
        if question.more_follow:
            self._open[answer.model] = overlay, dice
            return
        x, y = question.origin_xy
        mean = f"Dice {np.mean(dice):.3f}" if dice else "no object is scored here"
        place = len(self.pictures) - self._models.index(answer.model)
        self.pictures.insert(place, overlay.picture())
        self.captions.insert(place, f"{answer.model}, {question.kind}, {mean}; {question.frame_id} at {x}, {y}")
