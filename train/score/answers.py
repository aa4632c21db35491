"""Read tiles, ask models and baselines about them under one protocol, and score their answers.

Axes: O objects of a tile, S pixels per side, C simulated clicks. Masks are compared at the store's resolution.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StoreError
from schemas.manifest import SPLITS
from schemas.points import Prompt
from schemas.prompt_kinds import PromptKind
from schemas.record import Record
from schemas.store.store import Store
from train.choices import SplitChoice
from train.data.tile_parts import read_parts
from train.model.names import BASELINE
from train.model.predictor import MaskPredictor, View
from train.score.baselines import baseline_masks, disc_radius_px
from train.score.jitter import jittered
from train.score.metrics import score_masks
from train.score.protocol import ScoringProtocol
from train.score.score_table import ScoreTable
from train.score.scored_once import ScoredOnce
from train.score.simulated_clicks import click_scores
from train.score.surface_dice import TileOutlines
from train.score.tile_answer import Answer, Question, ScoredAnswer
from train.transforms.sample import pad_prompts

logger = logging.getLogger(__name__)


def tiles_with_objects(store: Store, split: str, *, may_be_empty: bool = False) -> NDArray[np.int64]:
    """Return the indices of the tiles of a split that have an object.

    Args:
        store: The store.
        split: `train`, `val`, `test`, or `all` for all three.
        may_be_empty: Whether to return an empty array, instead of raising, if no tile has an object.

    Raises:
        StoreError: No tile of the split has an object, and `may_be_empty` is not set.
    """
    splits = store.column("tiles/split")
    chosen = np.ones(len(store), bool) if split == "all" else splits == split
    indices = np.flatnonzero(chosen & (np.diff(store.column("tiles/object_offsets")) > 0))
    if not len(indices) and not may_be_empty:
        held = ", ".join(name for name in SPLITS if (splits == name).any())
        raise StoreError(store.path, f"has no object in the split {split!r}", f"it has tiles in {held}")
    return indices


def default_split(store: Store) -> SplitChoice:
    """Return the split that is scored by default: the first of test, val and train that has an object."""
    order: tuple[SplitChoice, ...] = ("test", "val", "train")
    for split in order:
        if len(tiles_with_objects(store, split, may_be_empty=True)):
            if split != "test":
                logger.warning("%s has no object in the split test, so %s is scored", store.path, split)
            return split
    return "test"


def tile_prompts(store: Store, record: Record, kind: PromptKind, *, negatives: bool) -> list[Prompt]:
    """Return the stored prompt of each object of a record, in its order.

    Raises:
        StoreError: `negatives` is set, but the store has no negative points.
    """
    prompts = store.prompts(record.index, kind, negatives=negatives, object_ids=set(record.object_ids.tolist()))
    return [prompts[int(object_id)] for object_id in record.object_ids]


def score_tiles(
    store: Store,
    indices: Sequence[int],
    predictors: dict[str, MaskPredictor],
    protocol: ScoringProtocol,
    workers: int = 1,
) -> Iterator[ScoredAnswer]:
    """Ask every model and baseline about every tile under every prompt kind, and score each answer.

    A model encodes each tile once, and uses the features for all prompt kinds. A tile with many objects is asked about
    in parts, each of which has its own answers; see `train.data.tile_parts`. Where tiles overlap, an answer has the
    masks of all objects, but scores only for objects that no other tile scores; see `train.score.scored_once`. After
    each answer of a model come those to its moved prompts, if the protocol asks for them.

    Args:
        store: The store with the tiles and prompts.
        indices: Indices of the tiles.
        predictors: The models by name.
        protocol: What the models are asked and how their answers are scored.
        workers: Number of threads that read tiles ahead.
    """
    radius_px = disc_radius_px(store) if "disc" in protocol.baselines else 0.0
    once = ScoredOnce(store, tiles_with_objects(store, protocol.split, may_be_empty=True))
    views: dict[str, list[View]] = {}
    encoded: int | None = None
    for part, record in read_parts(store, indices, workers):
        counted = once.counted(record)
        kept = once.kept(counted)
        outlines = protocol.outlines(counted, store.source(record.frame_id).mpp_um)
        if part.index != encoded:
            views = {name: p.views(record.image, all_eight=protocol.tta) for name, p in predictors.items()}
            encoded = part.index
        baselines = list(_baseline_scores(store, counted, protocol, radius_px, outlines))
        for kind in protocol.kinds:
            prompts = tile_prompts(store, record, kind, negatives=protocol.negatives)
            question = Question.from_record(record, kind, prompts, more_follow=part.more_follow)
            for name, predictor in predictors.items():
                answer = answer_question(predictor, name, views[name], question, protocol.threshold(name, kind))
                scores = _model_scores(predictor, views[name], answer, counted, protocol.corrections, outlines)
                if counted is not record and not np.isnan(scores.iou_estimate).any():
                    whole = score_masks(answer.masks, record.segments, record.ignore)
                    scores = replace(scores, whole_iou=whole.iou)
                yield ScoredAnswer(answer, record, scores.rows(kept))
                for share in protocol.jitter:
                    moved = jittered(question, record, share)
                    answer = answer_question(predictor, name, views[name], moved, protocol.threshold(name, kind))
                    scores = _model_scores(predictor, views[name], answer, counted, 0, outlines)
                    yield ScoredAnswer(answer, record, scores.rows(kept))
            for name, masks, scores in baselines:
                yield ScoredAnswer(Answer(name, question, masks), record, scores.rows(kept))


def answer_question(
    predictor: MaskPredictor, name: str, views: Sequence[View], question: Question, threshold: float = 0.0
) -> Answer:
    """Predict the masks of one tile's objects; the true masks are not needed.

    Args:
        predictor: The model.
        name: Name of the model, for the answer.
        views: The tile's features, from `predictor.views(image)`.
        question: The tile and its prompts.
        threshold: The logit above which a pixel is in the mask.
    """
    coords, labels = pad_prompts(question.prompts)
    prediction = predictor.predict(views, coords, labels, question.size_px)
    return Answer(name, question, prediction.masks(question.size_px, threshold), prediction, threshold)


def _model_scores(
    predictor: MaskPredictor,
    views: list[View],
    answer: Answer,
    record: Record,
    corrections: int,
    outlines: TileOutlines | None,
) -> ScoreTable:
    """Score a model's masks, and its masks after each simulated click."""
    assert answer.prediction is not None
    scores = score_masks(answer.masks, record.segments, record.ignore, outlines)
    clicks: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    if corrections:
        prompt = pad_prompts(answer.question.prompts)
        after = list(click_scores(predictor, views, record, prompt, answer.prediction, corrections, answer.threshold))
        steps = [scores, *after]
        clicks = np.column_stack([step.dice for step in steps]), np.column_stack([step.iou for step in steps])
    # The model's IoU estimate is meant for a mask from a single view, cut at a logit of 0.
    has_estimates = len(views) == 1 and answer.threshold == 0
    return ScoreTable.of_tile(record, scores, answer.iou_estimates if has_estimates else None, clicks)


def _baseline_scores(
    store: Store, record: Record, protocol: ScoringProtocol, radius_px: float, outlines: TileOutlines | None
) -> Iterator[tuple[str, NDArray[np.bool_], ScoreTable]]:
    """Yield name, masks and scores of each baseline.

    A baseline uses the box and the interior point, whatever the prompt kind is, so its masks are the same for all
    prompt kinds.
    """
    clicks = np.stack([p["point_coords"][0] for p in tile_prompts(store, record, "centroid", negatives=False)])
    for name in protocol.baselines:
        masks = baseline_masks(name, record, clicks, radius_px)
        scores = score_masks(masks, record.segments, record.ignore, outlines)
        yield f"{BASELINE}{name}", masks, ScoreTable.of_tile(record, scores)
