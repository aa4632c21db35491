"""What checkpoints were trained from, to be scored beside them: a fine-tuning that helps is better than its start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from train.backbone.catalog import ModelSize
from train.model.checkpoint import load_checkpoint, load_identified, load_weights
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.model.train_state import RunStart, run_start

logger = logging.getLogger(__name__)


def load_initial_weights(paths: Sequence[Path], device: torch.device) -> dict[str, MaskPredictor]:
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
    starts: dict[RunStart, Path] = {}
    for path in paths:
        start = run_start(load_checkpoint(path), path)
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


def _predictor(start: RunStart, path: Path, device: torch.device) -> MaskPredictor | None:
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


def _fresh(start: RunStart) -> PromptableSam:
    """The model with the random weights of the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start.seed)
        return PromptableSam(start.size, start.image_size)
