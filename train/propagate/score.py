"""Score masks that were followed through the sequences of a store, by the rules of DAVIS.

The prompts are on the first frame that shows an object. J and F are means over the frames after it, without the last
one and without frames that have no mask. An object counts as one number, whatever its number of frames. Objects that
appear after that first frame have no prompt and are not scored.
Axes: O objects, S pixels per side of a tile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.errors import StoreError
from schemas.store.store import Store
from schemas.store.tile import Tile
from train.choices import PropagatedPrompt
from train.model.predictor import MaskPredictor
from train.propagate.davis import outline_f, region_j
from train.propagate.follow import FirstMasks, FirstPoints, follow
from train.score.answers import tiles_with_objects
from train.transforms.geometry import mask_box
from train.transforms.sample import pad_prompts

logger = logging.getLogger(__name__)

BASELINES = ("baseline:mask", "baseline:box")
"""The masks of the first frame, and their filled boxes, copied to all other frames."""

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class ObjectScore:
    """The scores of one object in one sequence.

    Attributes:
        model: Name of the model or baseline.
        sequence: Name of the sequence.
        window: Number of the window of the frames; 0 if a frame is one tile.
        track: The object's value in the masks.
        frames: Number of frames that were scored.
        j: Mean IoU.
        f: Mean F-score of the outline.
    """

    model: str
    sequence: str
    window: int
    track: int
    frames: int
    j: float
    f: float


@dataclass(frozen=True)
class _Followable:
    """One window of a sequence, from the first frame that shows an object to the last frame.

    Attributes:
        sequence: Name of the sequence.
        window: Number of the window.
        tiles: One tile for each frame; the first has the objects.
        labeled: Whether each frame has a mask in this window; not all of its pixels are ignored.
    """

    sequence: str
    window: int
    tiles: tuple[Tile, ...]
    labeled: tuple[bool, ...]

    @property
    def scored(self) -> list[int]:
        """Numbers of the frames that are scored: all that have a mask, without the first and the last frame."""
        return [number for number in range(1, len(self.tiles) - 1) if self.labeled[number]]

    @property
    def late(self) -> int:
        """Number of objects that the first frame does not show; they have no prompt."""
        return len({track for tile in self.tiles for track in tile.tracks.values()} - {*self.tiles[0].tracks.values()})

    def truth(self, number: int) -> Masks:
        """Return the masks of the first frame's objects in a frame, bool (O, S, S); empty where one is hidden."""
        tile, rows = self.tiles[number], {track: row for row, track in enumerate(self.tiles[0].tracks.values())}
        shown = {object_id: rows[track] for object_id, track in tile.tracks.items() if track in rows}
        masks = np.zeros((len(rows), *tile.ignore.shape), bool)
        if shown:
            masks[list(shown.values())] = tile.segments(shown)
        return masks

    def prompt(self, kind: PropagatedPrompt) -> FirstMasks | FirstPoints:
        """Return the masks or the points of the first frame."""
        return self.truth(0) if kind == "mask" else pad_prompts(list(self.tiles[0].prompts(kind).values()))


def score_sequences(
    store: Store, predictors: dict[str, MaskPredictor], split: str, kind: PropagatedPrompt
) -> list[ObjectScore]:
    """Follow the objects of all sequences of a split with each model, and score them beside the baselines.

    Args:
        store: The store.
        predictors: The models by name.
        split: `train`, `val`, `test`, or `all` for all three.
        kind: The prompt in the first frame.

    Raises:
        StoreError: The store has no sequences, or none of the split has three frames from its first object on.
    """
    if not store.sequences:
        raise StoreError(store.path, "has no sequences", "build it with `--sequences`, or leave --propagate out")
    found: list[ObjectScore] = []
    late = 0
    for followable in _followables(store, split):
        late += followable.late
        for name, masks in _answers(followable, predictors, kind):
            found += _scores(followable, name, masks)
    if late:
        logger.warning("objects that appear after the prompts of their sequence are not scored: %d", late)
    if not found:
        what = f"has no sequence in the split {split!r} with three frames from its first object on"
        raise StoreError(store.path, what, "the first and the last frame are not scored; choose another --split")
    return found


def summarize(scores: list[ObjectScore]) -> dict[str, Any]:
    """Return the means over objects, for each model: of all objects, and of each sequence."""
    return {
        model: {
            "overall": _means([score for score in scores if score.model == model]),
            "sequences": {
                name: _means([score for score in scores if (score.model, score.sequence) == (model, name)])
                for name in dict.fromkeys(score.sequence for score in scores)
            },
        }
        for model in dict.fromkeys(score.model for score in scores)
    }


def _means(scores: list[ObjectScore]) -> dict[str, float]:
    j, f = (float(np.mean([getattr(score, name) for score in scores])) for name in ("j", "f"))
    return {"j": j, "f": f, "j_and_f": (j + f) / 2, "n": len(scores)}


def _followables(store: Store, split: str) -> Iterator[_Followable]:
    chosen = set(tiles_with_objects(store, split).tolist())
    for name in store.sequences:
        frames = store.sequence(name)
        for window in range(len(frames[0].tiles)):
            first = next((n for n, frame in enumerate(frames) if frame.tiles[window] in chosen), len(frames))
            rest = frames[first:]
            found = _Followable(
                name,
                window,
                tuple(store.tile(frame.tiles[window]) for frame in rest),
                tuple(frame.labelled and not _is_ignored(store, frame.tiles[window]) for frame in rest),
            )
            if found.scored:
                yield found


def _is_ignored(store: Store, index: int) -> bool:
    # A tile keeps what it reads, so a tile of its own is read here.
    return bool(store.tile(index).ignore.all())


def _answers(
    followable: _Followable, predictors: dict[str, MaskPredictor], kind: PropagatedPrompt
) -> Iterator[tuple[str, Iterator[Masks]]]:
    """Yield each model and baseline with its masks, frame by frame."""
    count = len(followable.tiles)
    for name, predictor in predictors.items():
        # A tile keeps what it has read, so that each image is read by a tile of its own.
        images = (tile.store.tile(tile.index).image for tile in followable.tiles)
        yield name, (logits > 0 for logits in follow(predictor, images, followable.prompt(kind), count))
    masks = followable.truth(0)
    for name, copied in zip(BASELINES, (masks, _boxes(masks)), strict=True):
        yield name, iter([copied] * count)


def _scores(followable: _Followable, model: str, answers: Iterator[Masks]) -> list[ObjectScore]:
    tracks, scored = list(followable.tiles[0].tracks.values()), followable.scored
    values: dict[int, list[tuple[float, float]]] = {track: [] for track in tracks}
    for number, masks in enumerate(answers):
        if number not in scored:
            continue
        ignore = followable.tiles[number].ignore
        for track, mask, truth in zip(tracks, masks, followable.truth(number), strict=True):
            values[track].append((region_j(mask, truth, ignore), outline_f(mask, truth, ignore)))
    return [
        ObjectScore(model, followable.sequence, followable.window, track, len(scored), *np.mean(found, 0).tolist())
        for track, found in values.items()
    ]


def _boxes(masks: Masks) -> Masks:
    """Fill the box of each mask."""
    filled = np.zeros_like(masks)
    for row, mask in enumerate(masks):
        left, top, right, bottom = mask_box(torch.from_numpy(mask)).tolist()
        filled[row, top : bottom + 1, left : right + 1] = True
    return filled
