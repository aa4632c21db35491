"""Follow the objects of a store's sequences with checkpoints, and write their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.store.store import open_store
from train.backbone.catalog import ModelSize
from train.choices import DeviceChoice, PropagatedPrompt, SplitChoice
from train.model.loading import load_predictors
from train.model.names import name_checkpoints
from train.output.evaluation_files import remove_evaluation_files, remove_optional
from train.propagate.result import write_scores
from train.propagate.score import score_sequences
from train.runtime.device import pick_device
from train.runtime.folder_lock import locked_folder
from train.score.answers import default_split, tiles_with_objects
from train.score.evaluate import seen_as_json, seen_patients_of
from train.score.protocol import ScoringProtocol


@dataclass(frozen=True)
class PropagationSettings:
    """What is followed, and with which models.

    Attributes:
        store: Path or URL of the store.
        checkpoints: The checkpoints, each a path or NAME=PATH.
        prompt: The prompt in the first frame.
        split: The split that is scored; None for test, or the next one that has tiles.
        allow_seen: Whether test patients that a model was trained on may be scored.
        model: Network of checkpoints that do not record it.
        image_size: Side of the input in pixels; None for that of the checkpoint.
        device: The device that computes.
    """

    store: str
    checkpoints: Sequence[str]
    prompt: PropagatedPrompt = "box"
    split: SplitChoice | None = None
    allow_seen: bool = False
    model: ModelSize | None = None
    image_size: int | None = None
    device: DeviceChoice = "auto"


def run_propagation(settings: PropagationSettings, out: Path) -> dict[str, Any]:
    """Follow objects from their first frame, and write J and F of the models and the baselines.

    Args:
        settings: What is followed, and with which models.
        out: Folder for propagation.json and propagation.csv.

    Returns:
        The content of propagation.json.

    Raises:
        StoreError: The store has no sequences, or none of the split is long enough.
        CheckpointError: A checkpoint cannot be used.
        ConfigError: A model has seen patients of the test split.
    """
    store = open_store(settings.store)
    split = settings.split or default_split(store)
    device = pick_device(settings.device)
    predictors = load_predictors(name_checkpoints(settings.checkpoints), device, settings.model, settings.image_size)
    protocol = ScoringProtocol(split, (), allow_seen=settings.allow_seen)
    among = seen_patients_of(store, tiles_with_objects(store, split).tolist(), predictors, protocol)
    seen = {name: seen_as_json(patients) for name, patients in among.items()}
    with locked_folder(out):
        scores = score_sequences(store, predictors, split, settings.prompt)
        remove_optional(out)
        remove_evaluation_files(out)
        return write_scores(scores, store, predictors, seen, split, settings.prompt, out)
