"""Read and write checkpoints. Writing is atomic, reading runs no code, and Meta's `build_sam2` can load them.

A file holds only tensors and plain Python values, because `build_sam2` uses `torch.load(weights_only=True)`, which
accepts nothing else. That call runs no code from the file, but it would allocate as much memory as the file claims to
need. So sizes and names are checked before the call.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickletools
import re
import zipfile
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from schemas.command.stage_timer import timed
from schemas.errors import CheckpointError
from train.backbone.catalog import MODEL_SIZES, ModelSize
from train.choices import MAX_IMAGE_SIZE
from train.model.promptable import PromptableSam
from train.model.run_checkpoints import BEST_FILE, best_checkpoint, last_checkpoint
from train.model.wrappers import SAFETENSORS_SUFFIX, check_no_pointer, read_safetensors, with_weights
from train.runtime.stop import finish_before_interrupt

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]

MAX_PICKLE_BYTES = 1 << 26
"""Largest pickle in a checkpoint. Names, shapes and plain values of our largest checkpoint take 1 MB."""

_ENTRY = re.compile(r"[ !#-\[\]-~]+")
"""Characters of an entry's name that all programs read alike: no control characters, quotes or backslashes."""

_PLAIN = re.compile(
    r"collections OrderedDict|_codecs encode|torch (Size|device)|torch\.serialization _get_layout"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)|torch\.nn\.parameter Parameter"
    r"|torch [A-Z][A-Za-z0-9]*Storage|torch (b?float|half|double|u?int|short|long|bool|complex)\w*"
)
"""Names that weights need. `weights_only` accepts more, such as `bytearray` and `Tensor`, which take any size."""


@dataclass(frozen=True)
class WeightsFile:
    """The identity of a weights file. A path is not enough, because another file may be there tomorrow.

    Attributes:
        path: Path of the file.
        sha256: SHA-256 of the file's bytes.
    """

    path: str
    sha256: str


def save_checkpoint(path: Path, content: dict[str, Any], keep_as: Path | None = None) -> None:
    """Write a checkpoint to a temporary file beside `path`, flush it to the disk, and rename it to `path`.

    Args:
        path: Path of the checkpoint.
        content: Tensors and plain values.
        keep_as: New path of the file that is now at `path`, once the new file is complete; None replaces that file.

    Raises:
        CheckpointError: The disk is full or not writable. The file at `path` is then unchanged.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with timed("save"), finish_before_interrupt():
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            if keep_as is not None and path.exists():
                path.replace(keep_as)
            partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as RuntimeError.
        partial.unlink(missing_ok=True)
        raise CheckpointError(path, f"cannot be written ({error})", "free space or choose another --out") from error


def is_input_side(side_px: int) -> bool:
    """Return whether a network of this project can have an input of this side."""
    return 128 <= side_px <= MAX_IMAGE_SIZE and side_px % 32 == 0


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; it must hold a state dict under `model`.

    Raises:
        CheckpointError: The file is absent or damaged, or holds anything other than tensors and plain values.
    """
    return _load(path, hashed=False)[0]


def load_identified(path: Path) -> tuple[dict[str, Any], WeightsFile]:
    """Read a checkpoint and hash it. Both see the same bytes, even if another file replaces it meanwhile.

    Raises:
        CheckpointError: See `load_checkpoint`.
    """
    content, sha256 = _load(path, hashed=True)
    return content, WeightsFile(str(path), sha256)


def _load(path: Path, *, hashed: bool) -> tuple[dict[str, Any], str]:
    if path.is_dir():
        inside = [best_checkpoint(path), last_checkpoint(path), path / BEST_FILE]
        file = next((name for name in inside if name.is_file()), "the file of a checkpoint, as RUN/checkpoints/best.pt")
        raise CheckpointError(path, "is a folder", f"give {file}")
    try:
        with path.open("rb") as file:
            check_no_pointer(path, file.read(64))
            file.seek(0)
            if path.suffix == SAFETENSORS_SUFFIX:
                data = file.read()
                return _checked(read_safetensors(path, data), path), hashlib.sha256(data).hexdigest() if hashed else ""
            _check_archive(path, file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest() if hashed else ""
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(path, "does not exist", "check the path") from error
    except CheckpointError:
        raise
    except Exception as error:
        # Damaged bytes make the unpickler raise many types: IndexError, struct.error, TypeError and more.
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(path, f"cannot be read ({first})", "download or save it again") from error
    return _checked(content, path), sha256


def _checked(content: object, path: Path) -> dict[str, Any]:
    """Return the content of a file if it is a checkpoint.

    Raises:
        CheckpointError: It is not a checkpoint.
    """
    content = with_weights(content, path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(path, "holds no weights under 'model'", "give a checkpoint of SAM 2 or of bcss-train")
    checked = cast("dict[str, Any]", content)
    for place, weights in (("model", checked["model"]), ("ema", _average(checked) or {})):
        for name, weight in cast("dict[object, object]", weights).items():
            if not isinstance(name, str) or not isinstance(weight, Tensor):
                what = f"holds {name!r:.80} under {place!r}, which is not a weight"
                raise CheckpointError(path, what, "save it again")
    trained_with(checked, path)
    return checked


def _check_archive(path: Path, file: BufferedReader) -> None:
    """Check that a file is as large as it claims, and that its pickle refers only to names that weights need.

    Raises:
        CheckpointError: The file has a format older than PyTorch 1.6, is compressed, or needs other names.
        OSError: The file cannot be read.
        Exception: zipfile or pickletools failed on damaged bytes; they raise many types.
    """
    if file.read(4) != b"PK\x03\x04":
        raise CheckpointError(
            path,
            "cannot be read (it is not a file of torch.save from PyTorch 1.6 or later)",
            "download or save it again",
        )
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise CheckpointError(path, "cannot be read (it claims more bytes than it has)", "save it again")
        # torch ignores case when it looks for an entry, and takes one of several with the same name.
        names = {entry.orig_filename.lower() for entry in entries}
        if len(names) < len(entries) or not all(_ENTRY.fullmatch(name) for name in names):
            raise CheckpointError(path, "cannot be read (its entries have invalid names)", "save it again")
        # torch does not compare checksums, so they are compared here.
        damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(path, f"cannot be read (the checksum of {damaged} does not match)", "save it again")
        for entry in entries:
            if entry.filename.lower().endswith(".pkl"):
                if entry.file_size > MAX_PICKLE_BYTES:
                    raise CheckpointError(path, f"has {entry.file_size} bytes besides its tensors", "save only weights")
                for operation, name, _ in pickletools.genops(archive.read(entry)):
                    if operation.name in ("GLOBAL", "INST", "STACK_GLOBAL") and not _PLAIN.fullmatch(str(name)):
                        raise CheckpointError(
                            path, f"cannot be read (it needs {name})", "save tensors and plain values"
                        )


def trained_with(content: dict[str, Any], path: Path) -> tuple[ModelSize, int] | None:
    """Return the network and the image size in pixels that a checkpoint records; None if it records neither.

    Args:
        content: Content of the checkpoint.
        path: Path of the checkpoint, for the error.

    Raises:
        CheckpointError: A recorded value is not valid.
    """
    size, image_size = content.get("model_size"), content.get("image_size")
    if (size, image_size) == (None, None):
        return None
    is_size = isinstance(size, str) and size in MODEL_SIZES
    is_side = isinstance(image_size, int) and is_input_side(image_size)
    if not is_size or not is_side:
        what = f"has an invalid model_size {size!r:.40} or image_size {image_size!r:.40}"
        raise CheckpointError(path, what, "save or download it again")
    return cast("ModelSize", size), cast("int", image_size)


def prediction_weights(content: dict[str, Any], path: Path) -> Weights:
    """Return the weights that a checkpoint predicts with: the moving average if it has one.

    Args:
        content: The checkpoint.
        path: Path of the checkpoint, for a log line.
    """
    average = _average(content)
    if average is None:
        return content["model"]
    logger.info("%s: the moving average of its weights is used", path)
    return average


def _average(content: dict[str, Any]) -> Weights | None:
    average = content.get("ema")
    return average["model"] if isinstance(average, dict) and isinstance(average.get("model"), dict) else None


def load_weights(model: PromptableSam, weights: Weights, path: Path) -> None:
    """Load weights into a model; all names and shapes must agree.

    Args:
        model: The model; its weights are replaced.
        weights: Tensors under Meta's names.
        path: Path of the weights, for the error.

    Raises:
        CheckpointError: Names or shapes differ. The message lists some, and the network that the weights fit, if any.
    """
    own = model.sam.state_dict()
    older = [name for name in model.backbone.newer_weights if name not in weights]
    if older and len(older) == len(model.backbone.newer_weights):
        # They serve the memory of videos, which training on images does not run.
        logger.warning(
            "%s lacks %s, like all SAM 2.0 checkpoints; these weights keep their initial values", path, ", ".join(older)
        )
        weights = {**weights, **{name: own[name] for name in older}}
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    misshapen = [key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape]
    if missing or unexpected or misshapen:
        parts = [
            f"{len(keys)} {what} ({_by_module(keys)})"
            for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
            if keys
        ]
        guess = model.backbone.recognize(weights) or " or ".join(MODEL_SIZES)
        remedy = f"try --model {guess}"
        if guess == model.size:
            is_whole = not missing and not misshapen
            remedy = (
                "remove the unexpected weights from the file; the others are complete"
                if is_whole
                else "save or download it again, because it is incomplete"
            )
        raise CheckpointError(path, f"does not fit the model {model.size}: {'; '.join(parts)}", remedy)
    try:
        model.sam.load_state_dict(weights)
    except RuntimeError as error:
        # The tensors are sparse or quantized; checkpoints of SAM 2 have none of these.
        raise CheckpointError(path, f"holds tensors that are not dense ({error})", "save dense weights") from error


def _by_module(keys: list[str]) -> str:
    """Summarize keys: the only key of a module by its own name, several by the name of the module and their number."""
    modules: dict[str, list[str]] = {}
    for key in sorted(keys):
        modules.setdefault(".".join(key.split(".")[:2]), []).append(key)
    said = [found[0] if len(found) == 1 else f"{name}.* {len(found)}" for name, found in modules.items()]
    return ", ".join(said[:6]) + (f", and {len(said) - 6} more modules" if len(said) > 6 else "")
