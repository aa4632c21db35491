"""Load the weights that a checkpoint's training began with, to score them beside the checkpoint.

Fine-tuning has helped only if the checkpoint scores higher than these initial weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from train.backbone.catalog import ModelSize
from train.backbone.nano_start import init_file, is_nano_start
from train.model.checkpoint import (
    WeightsFile,
    load_checkpoint,
    load_identified,
    load_weights,
    prediction_weights,
    trained_with,
)
from train.model.loading import OFFICIAL_IMAGE_SIZE
from train.model.names import FULL_SIZE, NamedCheckpoint
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.model.seen_patients import seen_patients
from train.model.train_state import RunStart, run_start

logger = logging.getLogger(__name__)

UNTRAINED, ZERO_SHOT = "baseline:untrained", "baseline:zero_shot"


@dataclass(frozen=True)
class InitialWeights:
    """The initial weights of some checkpoints.

    Attributes:
        predictors: The models by name.
        start_of: For each checkpoint, by the name of its model, the name of its own initial weights. A checkpoint
            without any, or whose `--init` file is not there any more, is left out.
    """

    predictors: dict[str, MaskPredictor]
    start_of: dict[str, str]


def load_initial_weights(
    checkpoints: Sequence[Path | NamedCheckpoint], device: torch.device, *, at_full_size: bool = False
) -> InitialWeights:
    """Load the initial weights of checkpoints; each of them becomes one more baseline.

    Args:
        checkpoints: The checkpoints. Official SAM 2 checkpoints have no initial weights, and are skipped.
        device: The device that the models run on.
        at_full_size: Whether an official checkpoint that was fine-tuned at a smaller image size is also loaded for the
            size at which Meta trained it. Its name ends in `@1024px`.

    Returns:
        The models by name: `baseline:zero_shot` for the weights that `--init` named, `baseline:untrained` for the
        random weights of the run's seed. With `--init nano` it is loaded once, with seed 0. If several models would
        share a name, every one after the first has the name of its checkpoint appended. If an `--init` file no longer
        exists or has changed, a warning names it, and it is left out.

    Raises:
        CheckpointError: A checkpoint does not record its initial weights, or a file cannot be read.
    """
    starts: dict[RunStart, list[tuple[str, Path]]] = {}
    for item in checkpoints:
        name, path = (item.name, item.path) if isinstance(item, NamedCheckpoint) else (str(item), item)
        start = run_start(load_checkpoint(path), path)
        if start is not None:
            starts.setdefault(start, []).append((name, path))
    found: dict[str, MaskPredictor] = {}
    start_of: dict[str, str] = {}
    # Files are compared by SHA-256: one file may have several paths, and some checkpoints record only a path.
    known: dict[tuple[ModelSize, int, str], str] = {}
    at_full: set[tuple[ModelSize, str]] = set()
    for start, begun in starts.items():
        model, path = begun[0]
        predictor = _load_start(start, path, device)
        if predictor is None:
            continue
        name = ZERO_SHOT if predictor.weights else UNTRAINED
        name = name if name not in found else f"{name}:{model}"
        is_known = False
        if predictor.weights:
            key = (start.size, start.image_size, predictor.weights.sha256)
            is_known = key in known
            name = known.setdefault(key, name)
        start_of |= {own: name for own, _ in begun}
        if is_known:
            continue
        found[name] = predictor
        if predictor.weights and is_nano_start(Path(predictor.weights.path)):
            # This project trained this start, so the random weights from which it was trained are scored, too.
            found.setdefault(UNTRAINED, MaskPredictor(_random_model(start).eval(), device))
        if not at_full_size or predictor.weights is None or (start.size, predictor.weights.sha256) in at_full:
            continue
        if _is_official(predictor.weights, start):
            at_full.add((start.size, predictor.weights.sha256))
            times = round((OFFICIAL_IMAGE_SIZE / start.image_size) ** 2)
            logger.info(
                "the start %s is also scored at %d px, which takes %d times as long; --no-zero-shot leaves out both",
                predictor.weights.path,
                OFFICIAL_IMAGE_SIZE,
                times,
            )
            full = _load_start(replace(start, image_size=OFFICIAL_IMAGE_SIZE), path, device)
            if full is not None:
                found[f"{name}{FULL_SIZE}"] = full
    return InitialWeights(found, start_of)


def _is_official(weights: WeightsFile, start: RunStart) -> bool:
    """Return whether Meta trained the weights, at a larger image size than that of the run."""
    if start.image_size >= OFFICIAL_IMAGE_SIZE or is_nano_start(Path(weights.path)):
        return False
    path = Path(weights.path)
    return trained_with(load_checkpoint(path), path) is None


def _load_start(start: RunStart, path: Path, device: torch.device) -> MaskPredictor | None:
    """Load the initial weights of one checkpoint.

    Args:
        start: The initial weights that the checkpoint records.
        path: The checkpoint, for log lines.
        device: The device that the model runs on.

    Returns:
        The model, or None if the `--init` file no longer exists or has changed.

    Raises:
        CheckpointError: The `--init` file cannot be read, or holds another model.
    """
    if start.init is None:
        return MaskPredictor(_random_model(start).eval(), device)
    init = init_file(Path(start.init))
    if not init.is_file():
        logger.warning("%s was trained from %s, which no longer exists: its zero-shot score is left out", path, init)
        return None
    content, weights = load_identified(init)
    if start.init_sha256 is None:
        logger.warning("%s does not record the SHA-256 of its --init file: %s is used as it is now", path, init)
    elif start.init_sha256 != weights.sha256:
        logger.warning("%s was trained from %s, which has changed since: its zero-shot score is left out", path, init)
        return None
    model = _random_model(start)
    load_weights(model, prediction_weights(content, init), init)
    if is_nano_start(Path(start.init)):
        weights = replace(weights, path=start.init)
    return MaskPredictor(model.eval(), device, weights, seen_patients(content, init))


def _random_model(start: RunStart) -> PromptableSam:
    """Build the model with the random weights that the run's seed gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start.seed)
        return PromptableSam(start.size, start.image_size)
