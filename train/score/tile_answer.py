"""What a model is asked about one tile, what it answers, and how that answer scores against the truth.

Questions and answers do not contain the truth, so code that only predicts can make and write them too.

Axes: O objects of the tile, S pixels per side of the tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.points import Prompt
from schemas.prompt_kinds import PromptKind
from schemas.record import Record
from train.model.predictor import Prediction
from train.score.score_table import ScoreTable


@dataclass(frozen=True)
class Question:
    """One tile and one prompt for each of its objects.

    Attributes:
        kind: The kind of all prompts.
        prompts: The prompts, one for each object and in the order of `object_ids`.
        index: Number of the tile, which no other tile has; for a tile of a store, its index in the store.
        frame_id: Name of the ROI that the tile was cut from.
        origin_xy: x, y of the tile's top-left pixel in the ROI, in source pixels.
        scale_xy: Tile pixels per source pixel, along x and y.
        object_ids: int32 (O,), a number for each object that is unique within the tile.
        class_ids: int32 (O,), the class code of each object.
        ignore: bool (S, S), True where a pixel counts neither as object nor as background.
        more_follow: Whether the tile has further objects, which the next question of this kind asks about. The objects
            of one class then follow each other.
        jitter: Largest move of the prompts as a share of the object's size; 0 for exact prompts.
    """

    kind: PromptKind
    prompts: list[Prompt]
    index: int
    frame_id: str
    origin_xy: tuple[int, int]
    scale_xy: tuple[float, float]
    object_ids: NDArray[np.int32]
    class_ids: NDArray[np.int32]
    ignore: NDArray[np.bool_]
    more_follow: bool = False
    jitter: float = 0.0

    @classmethod
    def from_record(
        cls, record: Record, kind: PromptKind, prompts: list[Prompt], *, more_follow: bool = False
    ) -> Question:
        """Make a question about a tile of a store, without the tile's true segments."""
        return cls(
            kind=kind,
            prompts=prompts,
            index=record.index,
            frame_id=record.frame_id,
            origin_xy=record.origin_xy,
            scale_xy=record.scale_xy,
            object_ids=record.object_ids,
            class_ids=record.class_ids,
            ignore=record.ignore,
            more_follow=more_follow,
        )

    @property
    def size_px(self) -> int:
        """S, the side of the tile in pixels."""
        return self.ignore.shape[0]


@dataclass(frozen=True)
class Answer:
    """The masks that one model or baseline predicts for a question.

    Attributes:
        model: Name of the model or baseline.
        question: The tile and the prompts.
        masks: bool (O, S, S), the predicted mask of each object.
        prediction: Mask logits and IoU estimates of the model; None for a baseline, which has neither.
        threshold: The logit above which a pixel is in the mask.
    """

    model: str
    question: Question
    masks: NDArray[np.bool_]
    prediction: Prediction | None = None
    threshold: float = 0.0

    @property
    def iou_estimates(self) -> NDArray[np.float64]:
        """float64 (O,), the IoU that the model expects of each mask; NaN for a baseline."""
        if self.prediction is None:
            return np.full(len(self.masks), np.nan)
        return self.prediction.ious.double().cpu().numpy()


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer with the truth and the scores.

    Attributes:
        answer: The answer.
        record: The tile with its true segments.
        scores: The scores of the masks, one row for each object that no other tile scores.
    """

    answer: Answer
    record: Record
    scores: ScoreTable
