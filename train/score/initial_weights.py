"""What checkpoints were trained from, to be scored beside them: a fine-tuning that helps is better than its start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from schemas.errors import CheckpointError
from train.backbone.catalog import ModelSize
from train.choices import MAX_SEED
from train.model.checkpoint import begun_with, load_checkpoint, load_identified, load_weights, trained_with
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Start:
    """The weights that a run began with.

    Attributes:
        size: Its model.
        image_size: Side of its input in pixels.
        init: Path of `--init`, None for random weights.
        init_sha256: Digest of that file, None where the checkpoint does not say.
        seed: Of random weights; 0 with `--init`, where it does not matter.
    """

    size: ModelSize
    image_size: int
    init: str | None
    init_sha256: str | None
    seed: int


def load_starting_points(paths: Sequence[Path], device: torch.device) -> dict[str, MaskPredictor]:
    """Load what our checkpoints were trained from, as one more baseline each.

    Args:
        paths: Checkpoints; official ones have no start.
        device: Where to run.

    Returns:
        `baseline:zero_shot` for the weights of `--init`, `baseline:untrained` for the random ones of the run's seed;
        where there are several of a kind, each after the first with the path of a checkpoint behind. A file that is
        gone, or no longer the same, is named in the log and left out.

    Raises:
        CheckpointError: A checkpoint does not say what it was trained from, or a file cannot be read.
    """
    starts: dict[_Start, Path] = {}
    for path in paths:
        start = _start_of(load_checkpoint(path), path)
        if start is not None:
            starts.setdefault(start, path)
    found: dict[str, MaskPredictor] = {}
    # By their bytes: one file may have several paths, and a checkpoint without a digest has only a path.
    known: set[tuple[ModelSize, int, str]] = set()
    for start, path in starts.items():
        predictor = _predictor(start, path, device)
        if predictor is None:
            continue
        name = "baseline:zero_shot" if predictor.weights else "baseline:untrained"
        if predictor.weights:
            key = (start.size, start.image_size, predictor.weights.sha256)
            if key in known:
                continue
            known.add(key)
        found[name if name not in found else f"{name}:{path}"] = predictor
    return found


def _start_of(content: dict[str, Any], path: Path) -> _Start | None:
    """The start of a checkpoint of ours; None for an official one.

    Raises:
        CheckpointError: It is ours and does not say.
    """
    own, config = trained_with(content), content.get("config")
    if own is None or not isinstance(config, dict):
        return None
    settings = cast("dict[str, object]", config)
    init, seed = settings.get("init"), settings.get("seed", 0)
    if not isinstance(init, str | None) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise CheckpointError(path, "says neither --init nor --seed of its run", "give --no-zero-shot")
    return _Start(*own, init, begun_with(content, path), 0 if init else seed)


def _predictor(start: _Start, path: Path, device: torch.device) -> MaskPredictor | None:
    """The weights that a checkpoint's run began with; None where they are no longer to be had.

    Raises:
        CheckpointError: The file cannot be read or is of another model.
    """
    if start.init is None:
        return MaskPredictor(_fresh(start).eval(), device)
    init = Path(start.init)
    if not init.is_file():
        logger.warning("%s was trained from %s, which is gone: nothing is scored zero-shot", path, init)
        return None
    content, weights = load_identified(init)
    if start.init_sha256 is None:
        logger.warning("%s says no digest of its --init: %s is taken for it, as it lies there", path, init)
    elif start.init_sha256 != weights.sha256:
        logger.warning("%s was trained from another %s than lies there now: nothing is scored zero-shot", path, init)
        return None
    model = _fresh(start)
    load_weights(model, content["model"], init)
    return MaskPredictor(model.eval(), device, weights)


def _fresh(start: _Start) -> PromptableSam:
    """The model with the random weights of the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start.seed)
        return PromptableSam(start.size, start.image_size)
