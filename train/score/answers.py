"""Ask models and baselines about tiles, under one protocol, and score what they answer.

Axes: O objects of a tile, S pixels a side, C simulated clicks. Masks are compared at the store's resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from schemas.errors import StoreError
from schemas.manifest import SPLITS
from schemas.points import Prompt
from schemas.prompt_kinds import PromptKind
from schemas.record import Record
from schemas.store.store import Store
from train.data.loader import loading_error, prepare_process
from train.model.predictor import MaskPredictor, Prediction, View
from train.score.baselines import baseline_masks, disc_radius_px
from train.score.metrics import score_masks
from train.score.protocol import ScoringProtocol
from train.score.score_table import ScoreTable
from train.score.simulated_clicks import click_dice
from train.transforms.sample import pad_prompts


@dataclass(frozen=True)
class TileAnswer:
    """One model's answer for one tile and prompt kind.

    Attributes:
        model: The model's or baseline's name.
        kind: The prompt kind.
        record: The tile.
        prompts: The prompt of each object, in the record's order.
        masks: bool (O, S, S).
        scores: Of the masks.
        prediction: Logits behind the masks, None for a baseline.
    """

    model: str
    kind: PromptKind
    record: Record
    prompts: list[Prompt]
    masks: NDArray[np.bool_]
    scores: ScoreTable
    prediction: Prediction | None = None


def tiles_with_objects(store: Store, split: str, *, may_be_empty: bool = False) -> NDArray[np.int64]:
    """Indices of the tiles of a split that have an object.

    Raises:
        StoreError: There is none, and that is not allowed.
    """
    splits = store.column("tiles/split")
    chosen = np.ones(len(store), bool) if split == "all" else splits == split
    indices = np.flatnonzero(chosen & (np.diff(store.column("tiles/object_offsets")) > 0))
    if not len(indices) and not may_be_empty:
        held = ", ".join(name for name in SPLITS if (splits == name).any())
        raise StoreError(store.path, f"has no object in the split {split!r}", f"it has tiles in {held}")
    return indices


def read_records(store: Store, indices: Sequence[int], workers: int) -> Iterator[Record]:
    """Read tiles in order, in worker processes where there are any.

    Raises:
        StoreError: A tile is damaged.
        TrainingError: A worker process met a damaged tile, or died.
    """
    loader = DataLoader(
        cast("Dataset[Record]", store),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=prepare_process,
    )
    records = iter(loader)
    for index in indices:
        try:
            yield next(records)
        except RuntimeError as error:
            raise loading_error(f"a loading process, at the tile {index}", error, "repeat the command") from error


def answer_tiles(
    store: Store,
    indices: Sequence[int],
    predictors: dict[str, MaskPredictor],
    protocol: ScoringProtocol,
    workers: int = 0,
) -> Iterator[TileAnswer]:
    """Yield every model's and baseline's answer for every tile; a model encodes a tile once for all prompt kinds."""
    radius = disc_radius_px(store) if "disc" in protocol.baselines else 0.0
    for record in read_records(store, indices, workers):
        tolerance_px = protocol.tolerance_px(store.source(record.frame_id).mpp_um, record.scale_xy)
        views = {name: p.views(record.image, all_eight=protocol.tta) for name, p in predictors.items()}
        baselines = list(_baseline_answers(store, record, protocol, radius, tolerance_px))
        for kind in protocol.kinds:
            prompts = tile_prompts(store, record, kind, negatives=protocol.negatives)
            for name, predictor in predictors.items():
                asked = _Asked(name, kind, record, prompts)
                yield _model_answer(predictor, views[name], asked, protocol, tolerance_px)
            for answer in baselines:
                yield replace(answer, kind=kind, prompts=prompts)


def tile_prompts(store: Store, record: Record, kind: PromptKind, *, negatives: bool) -> list[Prompt]:
    """The prompt of each object of a tile, in the record's order."""
    prompts = store.prompts(record.index, kind, negatives=negatives)
    return [prompts[int(object_id)] for object_id in record.object_ids]


@dataclass(frozen=True)
class _Asked:
    model: str
    kind: PromptKind
    record: Record
    prompts: list[Prompt]


def _model_answer(
    predictor: MaskPredictor, views: list[View], asked: _Asked, protocol: ScoringProtocol, tolerance_px: float | None
) -> TileAnswer:
    record = asked.record
    size, threshold = record.image.shape[0], protocol.thresholds.get((asked.model, asked.kind), 0.0)
    coords, labels = pad_prompts(asked.prompts)
    prediction = predictor.predict(views, coords, labels, size)
    masks = prediction.masks(size, threshold)
    scores = score_masks(masks, record.segments, record.ignore, tolerance_px)
    clicks = None
    if protocol.corrections:
        found = click_dice(predictor, views, record, (coords, labels), prediction, protocol.corrections, threshold)
        clicks = np.column_stack([scores.dice, *found])
    estimates = prediction.ious.double().cpu().numpy()
    table = ScoreTable.of_tile(record, scores, estimates, clicks)
    return TileAnswer(asked.model, asked.kind, record, asked.prompts, masks, table, prediction)


def _baseline_answers(
    store: Store, record: Record, protocol: ScoringProtocol, radius_px: float, tolerance_px: float | None
) -> Iterator[TileAnswer]:
    """Baselines look at box and interior point whatever the prompt kind, so one answer serves for all."""
    clicks = np.stack([p["point_coords"][0] for p in tile_prompts(store, record, "centroid", negatives=False)])
    for name in protocol.baselines:
        masks = baseline_masks(name, record, clicks, radius_px)
        scores = score_masks(masks, record.segments, record.ignore, tolerance_px)
        table = ScoreTable.of_tile(record, scores)
        yield TileAnswer(f"baseline:{name}", protocol.kinds[0], record, [], masks, table)


def _as_it_is(record: Any) -> Any:
    return record
