"""Write the weights of a checkpoint for `build_sam2`, as safetensors, or as a folder for `transformers`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.errors import CheckpointError, ConfigError
from train.backbone.catalog import ModelSize
from train.choices import ExportFormat
from train.export.model_card import model_card
from train.export.transformers_config import network_config, processor_config
from train.export.transformers_weights import transformers_weights
from train.model.checkpoint import Weights
from train.model.loading import check_network, load_described
from train.model.wrappers import SAFETENSORS_SUFFIX, own_metadata

FOLDER_FILES = ("README.md", "config.json", "model.safetensors", "processor_config.json")
"""Files of a folder for `transformers`."""


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    target: ExportFormat,
    size: ModelSize | None = None,
    image_size: int | None = None,
    evaluation: Path | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint for other programs. If writing fails, no incomplete result is left.

    Args:
        checkpoint: Checkpoint of `fit`, or an official one.
        out: The file to write, or the folder for `transformers`.
        target: `weights` for a file that Meta's `build_sam2` loads, `safetensors` for the same weights in that format,
            `transformers` for a folder that `Sam2Model.from_pretrained` loads.
        size: Network of an official checkpoint.
        image_size: Side of the input of an official checkpoint's model, in pixels; None means 1024.
        evaluation: Result folder of `bcss-train evaluate` for the scores in the model card; None shows the last
            validation.
        overwrite: Whether an existing result is replaced.

    Returns:
        The path that was written.

    Raises:
        CheckpointError: The checkpoint cannot be read, or the result cannot be written.
        ConfigError: The result exists, or something else is in its place; or the network is not known or another one
            than the caller names.
    """
    # A path such as `.` has no name beside which the partial result could be written.
    out = out.resolve()
    _check_place(out, checkpoint, target, overwrite=overwrite)
    predictor, content = load_described(checkpoint, torch.device("cpu"), size, image_size)
    model = predictor.model
    check_network([model], size, image_size)
    assert predictor.weights is not None
    weights = {name: tensor.detach().contiguous() for name, tensor in model.sam.state_dict().items()}
    if target == "weights":
        own = {"model": weights, "model_size": model.size, "image_size": model.image_size}
        return _appear(out, lambda path: torch.save(own, path))
    if target == "safetensors":
        data = predictor.trained_on.content() if predictor.trained_on else None
        known = own_metadata({"model_size": model.size, "image_size": model.image_size, "trained_on": data})
        return _appear(out, lambda path: _save_safetensors(weights, path, known))
    card = model_card(checkpoint, content, model, predictor.weights, evaluation, out.name)

    def write(folder: Path) -> None:
        folder.mkdir()
        _save_safetensors(transformers_weights(weights), folder / "model.safetensors")
        write_json(folder / "config.json", network_config(model))
        write_json(folder / "processor_config.json", processor_config(model.image_size))
        (folder / "README.md").write_text(card, encoding="utf-8")

    return _appear(out, write)


def _check_place(out: Path, checkpoint: Path, target: ExportFormat, *, overwrite: bool) -> None:
    """Refuse to replace anything other than an earlier export, and a suffix of another format.

    Raises:
        ConfigError: Something is in the way, or the name has the suffix of another format.
    """
    if target != "transformers" and (out.suffix == SAFETENSORS_SUFFIX) != (target == "safetensors"):
        wanted = SAFETENSORS_SUFFIX if target == "safetensors" else ".pt"
        raise ConfigError(out, "would be read as another format, by its suffix", f"name a file that ends in {wanted}")
    if not out.exists():
        return
    if out.is_dir() != (target == "transformers"):
        what, wanted = ("is a folder", "a file") if out.is_dir() else ("is a file", "a folder")
        raise ConfigError(out, what, f"name {wanted} with --out")
    if not overwrite:
        raise ConfigError(out, "already exists", "choose another --out, or give --overwrite")
    if out.is_dir():
        others = sorted({path.name for path in out.iterdir()} - set(FOLDER_FILES))
        if others:
            raise ConfigError(out, f"holds other files than an export, such as {others[0]}", "choose another --out")
    elif checkpoint.exists() and out.samefile(checkpoint):
        raise ConfigError(out, "is the checkpoint itself", "choose another --out")


def _appear(out: Path, write: Callable[[Path], object]) -> Path:
    """Write to a temporary path beside the target, and move the complete result to the target."""
    partial = out.with_name(f".{out.name[:200]}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        try:
            write(partial)
            _remove(out)
            partial.replace(out)
        finally:
            _remove(partial)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as RuntimeError.
        raise CheckpointError(out, f"cannot be written ({error})", "free space or choose another --out") from error
    return out


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _save_safetensors(
    weights: Weights | dict[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(weights), path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file of the folder for `transformers`."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
