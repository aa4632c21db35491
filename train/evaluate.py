"""Score models and baselines under one protocol: the same objects, the same stored prompts, the same pixels.

Axes: O objects of a tile, S pixels a side. Masks are compared at the store's resolution, don't-care pixels left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from schemas.errors import ConfigError, StoreError
from schemas.manifest import SPLITS
from schemas.overlay import draw_overlay, side_by_side
from schemas.prompts import Prompt, PromptKind
from schemas.record import Record
from schemas.store import Store
from train.baselines import baseline_masks, disc_radius_px
from train.checkpoint import load_checkpoint, load_weights, trained_with
from train.choices import BASELINES, BaselineName, ModelSize
from train.metrics import ScoreTable, score_masks
from train.model import PromptableSam
from train.predict import MaskPredictor

OVERLAY_TILES = 8

Tables = dict[str, dict[PromptKind, ScoreTable]]


@dataclass(frozen=True)
class TileMasks:
    """One model's answer for one tile and prompt kind.

    Attributes:
        model: The model's or baseline's name.
        kind: The prompt kind.
        record: The tile.
        prompts: The prompt of each object, in the record's order.
        masks: bool (O, S, S).
    """

    model: str
    kind: PromptKind
    record: Record
    prompts: list[Prompt]
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Protocol:
    """What all models are asked.

    Attributes:
        split: The tiles.
        kinds: The prompt kinds, each scored by itself.
        negatives: Whether negative points are appended.
        baselines: Which baselines stand beside the models.
    """

    split: str
    kinds: tuple[PromptKind, ...]
    negatives: bool
    baselines: tuple[BaselineName, ...] = BASELINES


def load_predictor(
    path: Path, device: torch.device, size: ModelSize | None = None, image_size: int | None = None
) -> MaskPredictor:
    """Load a checkpoint for prediction.

    Args:
        path: Ours carries its model and image size; an official one takes them from the other arguments.
        device: Where to run.
        size: The model.
        image_size: Side of its input in pixels.

    Raises:
        CheckpointError: The file cannot be read or is of another model.
        ConfigError: The file does not say its model, and neither does the caller.
    """
    content = load_checkpoint(path)
    own = trained_with(content)
    if own is None and size is None:
        raise ConfigError(path, "does not say which model it is", "give --model, and --image-size if it is not 1024")
    own_size, own_image_size = own or (None, 1024)
    chosen = size or own_size
    assert chosen is not None
    model = PromptableSam(chosen, image_size or own_image_size)
    load_weights(model, content["model"], path)
    return MaskPredictor(model.eval(), device)


def load_predictors(
    paths: Sequence[Path], device: torch.device, size: ModelSize | None = None, image_size: int | None = None
) -> dict[str, MaskPredictor]:
    """Load checkpoints under names to tell them apart by: the file's stem, or its path where stems repeat."""
    stems = [path.stem for path in paths]
    return {
        path.stem if stems.count(path.stem) == 1 else str(path): load_predictor(path, device, size, image_size)
        for path in paths
    }


def overall_rows(result: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Rows (model, prompt kind, overall scores) of what `evaluate` returns."""
    return [
        (name, kind, scores["overall"]) for name, kinds in result["models"].items() for kind, scores in kinds.items()
    ]


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
    """Read tiles in order, in worker processes where there are any."""
    loader = DataLoader(
        cast("Dataset[Record]", store),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)


def answer_tiles(
    store: Store,
    indices: Sequence[int],
    predictors: dict[str, MaskPredictor],
    protocol: Protocol,
    workers: int = 0,
) -> Iterator[TileMasks]:
    """Yield every model's and baseline's masks of every tile; an image is encoded once a model."""
    radius = disc_radius_px(store) if "disc" in protocol.baselines else 0.0
    for record in read_records(store, indices, workers):
        clicks = np.stack([p["point_coords"][0] for p in _prompts(store, record, "centroid", negatives=False)])
        features = {name: predictor.embed(record.image) for name, predictor in predictors.items()}
        for kind in protocol.kinds:
            prompts = _prompts(store, record, kind, negatives=protocol.negatives)
            for name, predictor in predictors.items():
                masks = predictor.masks(features[name], prompts, record.image.shape[0])
                yield TileMasks(name, kind, record, prompts, masks)
            for baseline in protocol.baselines:
                masks = baseline_masks(baseline, record, clicks, radius)
                yield TileMasks(f"baseline:{baseline}", kind, record, prompts, masks)


def score_answers(answers: Iterator[TileMasks], on_answer: Callable[[TileMasks], None] | None = None) -> Tables:
    """Gather the scores of answers by model and prompt kind."""
    tables: Tables = {}
    for answer in answers:
        table = tables.setdefault(answer.model, {}).setdefault(answer.kind, ScoreTable())
        table.add(score_masks(answer.masks, answer.record.segments, answer.record.ignore), answer.record.class_ids)
        if on_answer:
            on_answer(answer)
    return tables


def merge_tables(parts: Sequence[Tables]) -> Tables:
    """Join the tables of several processes."""
    merged: Tables = {}
    for part in parts:
        for model, by_kind in part.items():
            for kind, table in by_kind.items():
                merged.setdefault(model, {}).setdefault(kind, ScoreTable()).extend(table)
    return merged


def summarize(tables: Tables, store: Store) -> dict[str, dict[str, Any]]:
    """Means by model, prompt kind and class: `{NAME: {PROMPT: {"overall": ..., "classes": ...}}}`."""
    names = {info.code: info.name for info in store.manifest.classes}
    return {model: {kind: table.summary(names) for kind, table in by_kind.items()} for model, by_kind in tables.items()}


def evaluate(
    store: Store,
    predictors: dict[str, MaskPredictor],
    protocol: Protocol,
    out: Path,
    *,
    workers: int = 0,
    on_tile: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score models and baselines, and write `metrics.json` and `overlays.png`.

    Args:
        store: Where tiles and prompts come from.
        predictors: The models by name; with none the baselines are scored alone.
        protocol: What they are asked.
        out: Folder to write to.
        workers: Processes that read tiles; 0 reads in this one.
        on_tile: Told how many tiles of how many are done.

    Returns:
        What `metrics.json` holds.

    Raises:
        StoreError: The split has no tile.
        ConfigError: No tile of it has an object.
    """
    indices: list[int] = tiles_with_objects(store, protocol.split).tolist()
    # Evenly over the split, and the same tiles for every model.
    shown = {indices[i * len(indices) // OVERLAY_TILES] for i in range(OVERLAY_TILES)}
    drawn_model = next(iter(predictors), f"baseline:{protocol.baselines[0]}")
    colors = {info.code: info.color for info in store.manifest.classes}
    panels: list[NDArray[np.uint8]] = []
    done: list[int] = []

    def watch(answer: TileMasks) -> None:
        if answer.record.index not in done:
            done.append(answer.record.index)
            if on_tile:
                on_tile(len(done), len(indices))
        if answer.record.index in shown and (answer.model, answer.kind) == (drawn_model, protocol.kinds[0]):
            panels.append(draw_overlay(answer.record, answer.prompts, colors, answer.masks))

    tables = score_answers(answer_tiles(store, indices, predictors, protocol, workers), watch)
    result: dict[str, Any] = {
        "protocol": {
            "store": store.path,
            "store_fingerprint": store.manifest.config_fingerprint,
            "split": protocol.split,
            "prompts": list(protocol.kinds),
            "negatives": protocol.negatives,
            "tiles": len(indices),
            "resolution_px": store.manifest.tile_size_px,
            "overlays_show": drawn_model,
        },
        "models": summarize(tables, store),
    }
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(side_by_side(panels, 4)).save(out / "overlays.png")
    (out / "metrics.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _as_it_is(record: Any) -> Any:
    return record


def _prompts(store: Store, record: Record, kind: PromptKind, *, negatives: bool) -> list[Prompt]:
    prompts = store.prompts(record.index, kind, negatives=negatives)
    return [prompts[int(object_id)] for object_id in record.object_ids]
