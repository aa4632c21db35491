"""What checkpoints were trained from, to be scored beside them: a fine-tuning that helps is better than its start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from schemas.errors import CheckpointError
from train.checkpoint import WeightsFile, identify, load_checkpoint, load_weights, trained_with
from train.choices import MAX_SEED, ModelSize
from train.model import PromptableSam
from train.predict import MaskPredictor

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
        with the checkpoint's stem behind where several differ. A file that is gone, or no longer the same, is named
        in the log and left out.

    Raises:
        CheckpointError: A checkpoint does not say what it was trained from, or a file cannot be read.
    """
    starts: dict[_Start, Path] = {}
    for path in paths:
        start = _start_of(load_checkpoint(path), path)
        if start is not None:
            starts.setdefault(start, path)
    found: dict[str, MaskPredictor] = {}
    for start, path in starts.items():
        weights = None if start.init is None else _unchanged(start.init, start.init_sha256, path)
        if start.init is not None and weights is None:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(start.seed)
            model = PromptableSam(start.size, start.image_size)
        if weights is not None:
            load_weights(model, load_checkpoint(Path(weights.path))["model"], Path(weights.path))
        name = "baseline:untrained" if weights is None else "baseline:zero_shot"
        found[name if name not in found else f"{name}:{path.stem}"] = MaskPredictor(model.eval(), device, weights)
    return found


def _start_of(content: dict[str, Any], path: Path) -> _Start | None:
    """The start of a checkpoint of ours; None for an official one."""
    own, config = trained_with(content), content.get("config")
    if own is None or not isinstance(config, dict):
        return None
    init, seed, digest = config.get("init"), config.get("seed", 0), content.get("init_sha256")
    if not isinstance(init, str | None) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise CheckpointError(path, "says neither --init nor --seed of its run", "give --no-zero-shot")
    if not isinstance(digest, str | None):
        raise CheckpointError(path, "says no digest of its --init", "give --no-zero-shot")
    return _Start(*own, init, digest, 0 if init else seed)


def _unchanged(init: str, sha256: str | None, path: Path) -> WeightsFile | None:
    """The file that a run began with, where it is still there and the same."""
    if not Path(init).is_file():
        logger.warning("%s was trained from %s, which is gone: nothing is scored zero-shot", path, init)
        return None
    weights = identify(Path(init))
    if sha256 not in (None, weights.sha256):
        logger.warning("%s was trained from another %s than lies there now: nothing is scored zero-shot", path, init)
        return None
    return weights
