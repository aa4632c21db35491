"""Find SAM 2's weights in files of other programs: bare state dicts, Lightning, DDP, `torch.compile`, safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from schemas.errors import CheckpointError

SAFETENSORS_SUFFIX = ".safetensors"
OWN_METADATA = "bcss_sam2"
"""Key of the metadata of a safetensors file under which `export` writes what a checkpoint knows, as JSON."""

_KNOWN = ("model_size", "image_size", "trained_on")

_PREFIXES = ("module.", "_orig_mod.", "model.", "sam.")
"""Prefixes that DDP, `torch.compile`, Lightning and other wrappers put before each name."""

_SAM_1 = "image_encoder.patch_embed.proj.weight"
"""Name of a weight that SAM 1 and the models based on it have, but SAM 2 does not."""

_TRANSFORMERS = "shared_image_embedding.positional_embedding"
"""Name of a weight that transformers gives SAM 2 and its relatives."""

_LFS = b"version https://git-lfs"


def check_no_pointer(path: Path, start: bytes) -> None:
    """Refuse a Git LFS pointer, which stands in for a file that was not fetched.

    Args:
        path: Path of the file.
        start: First bytes of the file.

    Raises:
        CheckpointError: The file is a pointer.
    """
    if start.startswith(_LFS):
        raise CheckpointError(path, "is a Git LFS pointer and not the weights", "run `git lfs pull` in its repository")


def read_safetensors(path: Path, data: bytes) -> dict[str, Any]:
    """Read the content of a safetensors file as a checkpoint, with what `export` wrote into its metadata.

    Args:
        path: Path of the file, for messages.
        data: All bytes of the file.

    Raises:
        CheckpointError: The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights = load(data)
        # The file begins with the length of its header, eight bytes, and the header, which is JSON.
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
        own = json.loads(metadata.get(OWN_METADATA, "{}"))
        return {"model": weights, **{key: own[key] for key in _KNOWN if key in own}}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(path, f"cannot be read ({error})", "download or save it again") from error


def own_metadata(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a safetensors file that tell what a checkpoint knows.

    Args:
        content: Content of the checkpoint.
    """
    return {OWN_METADATA: json.dumps({key: content[key] for key in _KNOWN if content.get(key) is not None})}


def with_weights(content: object, path: Path) -> object:
    """Move the weights in a file's content to the key `model`, under Meta's names; other content stays as it is.

    Args:
        content: The content that was read from the file.
        path: Path of the file, for messages.

    Raises:
        CheckpointError: The weights belong to SAM 1, which is another network, or have the names of transformers.
    """
    if not isinstance(content, dict):
        return content
    found = cast("dict[str, Any]", content)
    if not isinstance(found.get("model"), dict):
        if isinstance(found.get("state_dict"), dict):
            found = {"model": found["state_dict"]}
        elif found and all(isinstance(value, Tensor) for value in found.values()):
            found = {"model": found}
        else:
            return content
    weights = cast("dict[object, Any]", found["model"])
    if not all(isinstance(name, str) for name in weights):
        return content
    plain = _plain_names(cast("dict[str, Any]", weights))
    if _SAM_1 in plain:
        what = "holds weights of SAM 1 or of a model made from it, such as MedSAM, which is another network"
        raise CheckpointError(path, what, "give a checkpoint of SAM 2")
    if _TRANSFORMERS in plain:
        what = "holds weights under the names of transformers, which only transformers reads"
        raise CheckpointError(path, what, "give the checkpoint that they were exported from")
    return {**found, "model": plain}


def _plain_names(weights: dict[str, Any]) -> dict[str, Any]:
    """Remove the prefixes that wrappers put before all names, and the part that `torch.compile` puts within names."""
    plain = weights
    while plain and (prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in plain)), "")):
        plain = {name.removeprefix(prefix): weight for name, weight in plain.items()}
    return {name.replace("._orig_mod.", "."): weight for name, weight in plain.items()}
