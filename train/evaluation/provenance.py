"""Say which code made an evaluation, and on which machine."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import schemas
import train
from train.runtime.device import device_name

FORMAT_VERSION = 2
"""Version of the files of an evaluation, which `bcss-train verify` reads.

Raise it if the page, its pictures or a key of `metrics.json` changes. Files of version 1 do not record it."""

PACKAGES = ("bcss-sam2", "torch", "sam2", "zarr", "numpy")
"""Packages whose versions an evaluation records."""


def made_by(device: torch.device, command: str) -> dict[str, Any]:
    """Return what made an evaluation, for `metrics.json`.

    Args:
        device: Device of the models.
        command: The command line; empty if the evaluation was called from Python.
    """
    return {
        "form": FORMAT_VERSION,
        "command": command,
        "code_sha256": code_digest(),
        "versions": {name: version(name) for name in PACKAGES},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def code_digest() -> str:
    """Return a SHA-256 over the names and the content of all source files that score models."""
    total = hashlib.sha256()
    for package in (schemas, train):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            total.update(path.relative_to(folder.parent).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
