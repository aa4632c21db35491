"""Score models and baselines under one protocol: the same objects, the same stored prompts, the same pixels.

Axes: O objects of a tile, S pixels a side. Masks are compared at the store's resolution, don't-care pixels left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import ConfigError
from schemas.prompts import Prompt, PromptKind
from schemas.record import Record
from schemas.store import Store
from train.baselines import BASELINES, BaselineName, baseline_masks, disc_radius_px
from train.checkpoint import load_checkpoint, load_weights, trained_with
from train.metrics import ScoreTable, score_masks
from train.model import ModelSize, PromptableSam
from train.overlay import draw_overlay, side_by_side
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


def answer_tiles(
    store: Store, indices: Sequence[int], predictors: dict[str, MaskPredictor], protocol: Protocol
) -> Iterator[TileMasks]:
    """Yield every model's and baseline's masks of every tile with objects; an image is encoded once a model."""
    radius = disc_radius_px(store) if "disc" in protocol.baselines else 0.0
    for index in indices:
        record = store[index]
        if not len(record.object_ids):
            continue
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


def summarize(tables: Tables, store: Store) -> dict[str, dict[str, object]]:
    """Means by model, prompt kind and class: `{NAME: {PROMPT: {"overall": ..., "classes": ...}}}`."""
    names = {info.code: info.name for info in store.manifest.classes}
    return {model: {kind: table.summary(names) for kind, table in by_kind.items()} for model, by_kind in tables.items()}


def evaluate(
    store: Store,
    predictors: dict[str, MaskPredictor],
    protocol: Protocol,
    out: Path,
    on_tile: Callable[[int, int], None] | None = None,
) -> dict[str, object]:
    """Score models and baselines, and write `metrics.json` and `overlays.png`.

    Args:
        store: Where tiles and prompts come from.
        predictors: The models by name; with none the baselines are scored alone.
        protocol: What they are asked.
        out: Folder to write to.
        on_tile: Told how many tiles of how many are done.

    Returns:
        What `metrics.json` holds.

    Raises:
        StoreError: The split has no tile.
        ConfigError: No tile of it has an object.
    """
    offsets = store.column("tiles/object_offsets")
    indices = [int(i) for i in store.tile_indices(protocol.split) if offsets[i + 1] > offsets[i]]
    if not indices:
        raise ConfigError(f"{store.path} split {protocol.split}", "has no object to score", "choose another --split")
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
            panels.append(draw_overlay(answer.record, answer.masks, answer.prompts, colors))

    tables = score_answers(answer_tiles(store, indices, predictors, protocol), watch)
    result: dict[str, object] = {
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


def _prompts(store: Store, record: Record, kind: PromptKind, *, negatives: bool) -> list[Prompt]:
    prompts = store.prompts(record.index, kind, negatives=negatives)
    return [prompts[int(object_id)] for object_id in record.object_ids]
