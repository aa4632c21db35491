"""Score models and baselines on the same objects with the same stored prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.manifest import fingerprint, manifest_digest
from schemas.prompt_kinds import PromptKind
from schemas.store.store import Store
from train.model.names import BASELINE
from train.model.predictor import MaskPredictor
from train.model.seen_patients import SeenAmong, seen_error
from train.score.answers import score_tiles, tiles_with_objects
from train.score.baselines import is_oracle
from train.score.comparisons import own_start, paired_differences, planned_comparisons, with_best_baseline
from train.score.jitter import JitteredScores
from train.score.overlay_panels import OverlayPanels
from train.score.protocol import ScoringProtocol
from train.score.sinks import ScoredAnswerSink
from train.score.tables import Tables, gather_scores, summarize
from train.score.tile_answer import ScoredAnswer
from train.statistics.institutions import leave_one_out


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        result: The content of `metrics.json`.
        tables: Scores of every object, by model and prompt kind.
        panels: Overlays of some tiles, uint8 (512, 512, 3) each: the start, if there is one, then the model.
        captions: What each overlay shows: model, prompt kind, Dice and tile.
    """

    result: dict[str, Any]
    tables: Tables
    panels: list[NDArray[np.uint8]]
    captions: list[str]


def evaluate(
    store: Store,
    predictors: dict[str, MaskPredictor],
    protocol: ScoringProtocol,
    *,
    workers: int = 1,
    sinks: tuple[ScoredAnswerSink, ...] = (),
    on_tile: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score models and baselines.

    Args:
        store: The store with the tiles and prompts.
        predictors: The models by name; if there are none, only the baselines are scored.
        protocol: What the models are asked and how their answers are scored.
        workers: Number of threads that read tiles ahead.
        sinks: Objects that receive every scored answer, and are closed after the last one.
        on_tile: Function called with the number of finished tiles and the number of all tiles.

    Raises:
        StoreError: No tile of the split has an object.
        ConfigError: A model was trained or validated on patients of the test split, or `protocol.primary` is not one of
            the comparisons.
    """
    tiles: list[int] = tiles_with_objects(store, protocol.split).tolist()
    models = [*predictors, *(f"{BASELINE}{name}" for name in protocol.baselines)]
    planned = planned_comparisons(models, protocol.kinds, protocol.primary, protocol.against, protocol.start_of)
    seen = seen_patients_of(store, tiles, predictors, protocol)
    drawn = list(filter(None, (models[0], own_start(models[0], models, protocol.start_of))))
    # A box shows most of the outline, so a click shows better what a model knows.
    clicks: list[PromptKind] = [kind for kind in protocol.kinds if kind != "box"]
    panels = OverlayPanels(store, tiles, drawn, (clicks or protocol.kinds)[0])
    progress = _Progress(len(tiles), on_tile)
    moved = JitteredScores()
    scored = moved.apart_from(score_tiles(store, tiles, predictors, protocol, workers))
    tables = gather_scores(scored, (*sinks, progress, panels))
    for sink in sinks:
        sink.close()
    result: dict[str, Any] = {
        "protocol": _describe(store, predictors, protocol, len(tiles), drawn),
        "seen_patients": {name: seen_as_json(among) for name, among in seen.items()},
        "oracles": {
            f"{BASELINE}{name}": [kind for kind in protocol.kinds if is_oracle(name, kind)]
            for name in protocol.baselines
        },
        "models": summarize(tables, store),
        "paired": paired_differences(tables, with_best_baseline(planned, tables, protocol.against)),
    }
    places = _institutions(store, tiles)
    if places:
        result["institutions"] = _by_institution(tables, places)
    if protocol.jitter:
        names = {info.code: info.name for info in store.manifest.classes}
        result["jitter"] = moved.summary(tables, names)
    return Evaluation(result, tables, panels.pictures, panels.captions)


def store_digest(store: Store) -> str:
    """Return a SHA-256 over the manifest of a store and the digests of all its files."""
    manifest = store.manifest
    return fingerprint([manifest_digest(manifest), manifest.complete.checksums_sha256])


def seen_patients_of(
    store: Store, tiles: list[int], predictors: dict[str, MaskPredictor], protocol: ScoringProtocol
) -> dict[str, SeenAmong]:
    """Find the models that have seen some of the scored patients.

    Args:
        store: The store.
        tiles: Indices of the scored tiles.
        predictors: The models by name.
        protocol: The split that is scored, and whether seen patients of the test split are allowed.

    Raises:
        ConfigError: A model has seen patients of the test split, and the protocol does not allow that.
    """
    patients = set(store.column("tiles/patient")[tiles].tolist())
    found: dict[str, SeenAmong] = {}
    for name, predictor in predictors.items():
        among = None if predictor.seen is None else predictor.seen.among(patients)
        if not among:
            continue
        if protocol.split == "test" and not protocol.allow_seen:
            where = predictor.weights.path if predictor.weights else name
            remedy = "score a store with the same splits as in training, or give --allow-seen, which marks each number"
            raise seen_error(where, among, remedy)
        found[name] = among
    return found


def _institutions(store: Store, tiles: list[int]) -> dict[str, str]:
    """Return the institution of each scored patient, if all are known and no other patient is from one of them."""
    patients = store.column("tiles/patient")
    scored = set(patients[tiles].tolist())
    found = dict(zip(patients.tolist(), store.column("tiles/institution").tolist(), strict=True))
    own = {patient: place for patient, place in found.items() if place and patient in scored}
    others = {place for patient, place in found.items() if patient not in scored}
    places = set(own.values())
    is_apart = bool(others) and "" not in others and not places & others
    return own if len(own) == len(scored) and len(places) > 1 and is_apart else {}


def _by_institution(tables: Tables, places: dict[str, str]) -> dict[str, Any]:
    """Return `{"patients": {INSTITUTION: NUMBER}, "models": {MODEL: {PROMPT: {"without", "ci95"}}}}`."""
    names = sorted(set(places.values()))
    models: dict[str, Any] = {}
    for model, kinds in tables.items():
        for kind, table in kinds.items():
            own = np.array([places[patient] for patient in table.patient.tolist()])
            found = leave_one_out(table.dice, table.patient, table.class_id, own)
            if found:
                models.setdefault(model, {})[kind] = found
    return {"patients": {name: list(places.values()).count(name) for name in names}, "models": models}


def seen_as_json(among: SeenAmong) -> dict[str, Any]:
    """Return the scored patients that a model has seen as `metrics.json` holds them."""
    return {"trained": list(among.trained), "validated": list(among.validated), "said": str(among)}


class _Progress:
    """Counts the tiles that have at least one answer."""

    def __init__(self, tiles: int, on_tile: Callable[[int, int], None] | None) -> None:
        self._tiles = tiles
        self._on_tile = on_tile
        self._done: set[int] = set()

    def __call__(self, scored: ScoredAnswer) -> None:
        if scored.record.index in self._done:
            return
        self._done.add(scored.record.index)
        if self._on_tile:
            self._on_tile(len(self._done), self._tiles)


def _describe(
    store: Store, predictors: dict[str, MaskPredictor], protocol: ScoringProtocol, tiles: int, drawn: list[str]
) -> dict[str, Any]:
    """Describe what was scored and how, for `metrics.json`."""
    return {
        "store": store.path,
        "store_fingerprint": store.manifest.config_fingerprint,
        "store_sha256": store_digest(store),
        "weights": {name: asdict(model.weights) for name, model in predictors.items() if model.weights},
        "split": protocol.split,
        "prompts": list(protocol.kinds),
        "negatives": protocol.negatives,
        "tiles": tiles,
        "baselines": list(protocol.baselines),
        "networks": {
            name: {"size": own.model.size, "image_size_px": own.model.image_size} for name, own in predictors.items()
        },
        "object_kind": store.manifest.object_kind,
        "classes": {str(info.code): info.name for info in store.manifest.classes},
        "resolution_px": store.manifest.tile_size_px,
        "surface_tolerance_um": protocol.tolerance_um,
        "tta": protocol.tta,
        "corrections": protocol.corrections,
        "jitter": list(protocol.jitter),
        "thresholds": {f"{model}, {kind}": value for (model, kind), value in protocol.thresholds.items()},
        "intervals": "95 %, Student's t over patients",
        "overlays_show": drawn[0],
        "overlays_beside": drawn[1:],
    }
