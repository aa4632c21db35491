"""Load checkpoints for prediction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from schemas.errors import ConfigError
from train.backbone.catalog import MODEL_SIZES, ModelSize, backbone_of
from train.choices import MAX_IMAGE_SIZE
from train.model.checkpoint import (
    Weights,
    is_input_side,
    load_identified,
    load_weights,
    prediction_weights,
    trained_with,
)
from train.model.names import NamedCheckpoint, name_checkpoints
from train.model.predictor import MaskPredictor
from train.model.promptable import PromptableSam
from train.model.seen_patients import seen_patients
from train.model.trained_on import trained_on

logger = logging.getLogger(__name__)

OFFICIAL_IMAGE_SIZE = 1024
"""Side of the input in pixels at which Meta trained the official checkpoints."""


def load_mask_predictor(
    path: Path, device: torch.device, size: ModelSize | None = None, image_size: int | None = None
) -> MaskPredictor:
    """Load a checkpoint for prediction.

    Args:
        path: Path of the checkpoint. Checkpoints of this project record their network and image size; official ones do
            not.
        device: Device that the model runs on.
        size: Network of an official checkpoint; None finds it from the shapes of the weights.
        image_size: Side of the input of an official checkpoint's model, in pixels; None means 1024.

    Raises:
        CheckpointError: The file cannot be read, or does not fit the network.
        ConfigError: Neither the caller nor the weights say which network it is.
    """
    return load_described(path, device, size, image_size)[0]


def load_described(
    path: Path, device: torch.device, size: ModelSize | None = None, image_size: int | None = None
) -> tuple[MaskPredictor, dict[str, Any]]:
    """Load a checkpoint with everything that it records.

    Arguments and errors are those of `load_mask_predictor`.

    Returns:
        The predictor, and the content of the file.
    """
    if size is not None and size not in MODEL_SIZES:
        raise ConfigError(f"model {size!r}", "is unknown", f"use one of {', '.join(MODEL_SIZES)}")
    if image_size is not None and not is_input_side(image_size):
        what = "is not a valid input size"
        raise ConfigError(f"image size {image_size}", what, f"give a multiple of 32 from 128 to {MAX_IMAGE_SIZE}")
    content, weights = load_identified(path)
    own = trained_with(content, path)
    found = size or recognized(content["model"])
    if own is None and found is None:
        what = "does not say which model it is, and has the weights of no network that is known"
        raise ConfigError(path, what, "give --model, and --image-size if it is not 1024")
    own_size, own_image_size = own or (found, image_size or OFFICIAL_IMAGE_SIZE)
    assert own_size is not None
    model = PromptableSam(own_size, own_image_size)
    load_weights(model, prediction_weights(content, path), path)
    seen = seen_patients(content, path)
    return MaskPredictor(model.eval(), device, weights, seen, trained_on(content, path)), content


def recognized(weights: Weights) -> ModelSize | None:
    """Return the network that weights belong to by their shapes, or None if there is no such network."""
    names = (backbone_of(size).recognize(weights) for size in MODEL_SIZES)
    return cast("ModelSize | None", next((name for name in names if name), None))


def load_predictors(
    checkpoints: Sequence[Path | NamedCheckpoint],
    device: torch.device,
    size: ModelSize | None = None,
    image_size: int | None = None,
) -> dict[str, MaskPredictor]:
    """Load several checkpoints for scoring; a warning names those of this project that do not record their patients.

    Args:
        checkpoints: The checkpoints; those without a name get one from `name_checkpoints`.
        device: Device that the models run on.
        size: Network of the official checkpoints; None finds that of each from its weights.
        image_size: Side of the input of the official checkpoints' models, in pixels; None means 1024.

    Returns:
        Predictors by name.

    Raises:
        CheckpointError: A file cannot be read, or does not fit the network.
        ConfigError: It is not known which network a file has, or no checkpoint has the network or the image size
            that the caller names; or two checkpoints have one name.
    """
    paths = [item for item in checkpoints if isinstance(item, Path)]
    unnamed = iter(name_checkpoints([str(path) for path in paths]))
    named = [item if isinstance(item, NamedCheckpoint) else next(unnamed) for item in checkpoints]
    found: dict[str, MaskPredictor] = {}
    for item in named:
        found[item.name], content = load_described(item.path, device, size, image_size)
        if found[item.name].seen is None and trained_with(content, item.path) is not None:
            what = "%s does not record its patients: they may be among those that are scored"
            logger.warning(what, item.path)
    check_network([predictor.model for predictor in found.values()], size, image_size)
    return found


def check_network(models: Sequence[PromptableSam], size: ModelSize | None, image_size: int | None) -> None:
    """Refuse a network or an image size that no loaded model has, because checkpoints know their own.

    Args:
        models: The models.
        size: The network that the caller named; None if none was named.
        image_size: The side of the input in pixels that the caller named; None if none was named.

    Raises:
        ConfigError: No model has the network or the image size.
    """
    for flag, wanted, own in (
        ("--model", size, [model.size for model in models]),
        ("--image-size", image_size, [model.image_size for model in models]),
    ):
        if own and wanted not in (None, *own):
            said = ", ".join(sorted({str(value) for value in own}))
            raise ConfigError(f"{flag} {wanted}", f"matches no given checkpoint; they have {said}", f"leave {flag} out")
