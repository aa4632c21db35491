"""Score models and baselines on the same objects with the same stored prompts, and write what they gave."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import ConfigError
from schemas.overlay import draw_overlay, side_by_side
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.data.loader import deaths_as_errors
from train.model.predictor import MaskPredictor
from train.score.answers import Tables, TileAnswer, answer_tiles, gather_scores, summarize, tiles_with_objects
from train.score.metrics import score_masks
from train.score.protocol import ScoringProtocol
from train.score.score_table import paired_difference

OVERLAY_TILES = 8
CANDIDATE_THRESHOLDS = tuple(sorted(np.linspace(-3, 3, 25).tolist(), key=abs))
"""Logits; of equally good ones the one nearest to 0 is taken."""


class AnswerSink(Protocol):
    """What wants to see every answer, such as a writer of masks."""

    def __call__(self, answer: TileAnswer) -> None:
        """See one answer."""
        ...

    def close(self) -> None:
        """Finish after the last one."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        result: What `metrics.json` holds.
        tables: The scores of every object.
        panels: Overlays of some tiles.
    """

    result: dict[str, Any]
    tables: Tables
    panels: list[NDArray[np.uint8]]


def evaluate(
    store: Store,
    predictors: dict[str, MaskPredictor],
    protocol: ScoringProtocol,
    *,
    workers: int = 0,
    sinks: tuple[AnswerSink, ...] = (),
    on_tile: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score models and baselines.

    Args:
        store: Where tiles and prompts come from.
        predictors: The models by name; with none the baselines are scored alone.
        protocol: What they are asked.
        workers: Processes that read tiles; 0 reads in this one.
        sinks: Shown every answer.
        on_tile: Told how many tiles of how many are done.

    Raises:
        StoreError: No tile of the split has an object.
    """
    indices: list[int] = tiles_with_objects(store, protocol.split).tolist()
    # Evenly over the split, and the same tiles for every model.
    shown = {indices[i * len(indices) // OVERLAY_TILES] for i in range(OVERLAY_TILES)}
    drawn_model = next(iter([*predictors, *(f"baseline:{name}" for name in protocol.baselines)]))
    colors = {info.code: info.color for info in store.manifest.classes}
    panels: list[NDArray[np.uint8]] = []
    done: set[int] = set()

    def watch(answer: TileAnswer) -> None:
        for sink in sinks:
            sink(answer)
        if answer.record.index not in done:
            done.add(answer.record.index)
            if on_tile:
                on_tile(len(done), len(indices))
        if answer.record.index in shown and (answer.model, answer.kind) == (drawn_model, protocol.kinds[0]):
            panels.append(draw_overlay(answer.record, answer.prompts, colors, answer.masks))

    with deaths_as_errors("repeat the command"):
        tables = gather_scores(answer_tiles(store, indices, predictors, protocol, workers), watch)
    for sink in sinks:
        sink.close()
    result: dict[str, Any] = {
        "protocol": _describe(store, predictors, protocol, len(indices), drawn_model),
        "models": summarize(tables, store),
        "paired": _paired(tables, protocol.kinds),
    }
    return Evaluation(result, tables, panels)


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write `metrics.json`, `objects.csv` with every object's scores, and `overlays.png`."""
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(side_by_side(evaluation.panels, 4)).save(out / "overlays.png")
    (out / "metrics.json").write_text(json.dumps(evaluation.result, indent=1) + "\n", encoding="utf-8")
    with (out / "objects.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names: list[str] = []
        for model, by_kind in evaluation.tables.items():
            for kind, table in by_kind.items():
                if not names:
                    names = [field.name for field in fields(table) if field.name != "clicks_dice"]
                    writer.writerow(["model", "prompt", *names])
                for row in zip(*(getattr(table, name).tolist() for name in names), strict=True):
                    writer.writerow([model, kind, *row])


def with_thresholds(
    wanted: str, store: Store, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol, workers: int = 0
) -> ScoringProtocol:
    """Set the threshold of logits: a number for all, or for `val` what suits each model and prompt kind best there.

    Raises:
        ConfigError: It is neither, or the split that is scored is, or contains, the validation split.
        StoreError: There is no validation tile.
    """
    if wanted != "val":
        try:
            value = float(wanted)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"--threshold {wanted}", "is neither a number nor val", "0 is SAM 2's own")
        return replace(protocol, thresholds={(name, kind): value for name in predictors for kind in protocol.kinds})
    if protocol.split in ("val", "all"):
        raise ConfigError(
            "--threshold val", f"would choose on what is scored, the split {protocol.split!r}", "score --split test"
        )
    indices: list[int] = tiles_with_objects(store, "val").tolist()
    asked = replace(protocol, split="val", baselines=(), corrections=0, tolerance_um=None)
    sums: dict[tuple[str, PromptKind], NDArray[np.float64]] = {}
    for answer in answer_tiles(store, indices, predictors, asked, workers):
        record = answer.record
        assert answer.prediction is not None
        size = record.image.shape[0]
        dice = [
            score_masks(answer.prediction.masks(size, threshold), record.segments, record.ignore).dice.sum()
            for threshold in CANDIDATE_THRESHOLDS
        ]
        key = (answer.model, answer.kind)
        sums[key] = sums.get(key, np.zeros(len(dice))) + dice
    chosen = {key: float(CANDIDATE_THRESHOLDS[int(total.argmax())]) for key, total in sums.items()}
    return replace(protocol, thresholds=chosen)


def _describe(
    store: Store, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol, tiles: int, drawn_model: str
) -> dict[str, Any]:
    return {
        "store": store.path,
        "store_fingerprint": store.manifest.config_fingerprint,
        "weights": {name: asdict(model.weights) for name, model in predictors.items() if model.weights},
        "split": protocol.split,
        "prompts": list(protocol.kinds),
        "negatives": protocol.negatives,
        "tiles": tiles,
        "resolution_px": store.manifest.tile_size_px,
        "surface_tolerance_um": protocol.tolerance_um,
        "tta": protocol.tta,
        "corrections": protocol.corrections,
        "thresholds": {f"{model}, {kind}": value for (model, kind), value in protocol.thresholds.items()},
        "intervals": "95 %, bootstrap over patients",
        "overlays_show": drawn_model,
    }


def _paired(tables: Tables, kinds: tuple[PromptKind, ...]) -> list[dict[str, Any]]:
    """Differences on the same objects: each model against the models after it and every baseline."""
    return [
        {
            "prompt": kind,
            "model": first,
            "minus": second,
            **paired_difference(tables[first][kind], tables[second][kind]),
        }
        for kind in kinds
        for first, second in combinations(tables, 2)
        if not first.startswith("baseline:")
    ]
