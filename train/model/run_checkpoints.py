"""Name the checkpoint files in the folder of a run."""

from __future__ import annotations

from pathlib import Path

BEST_FILE = "best.pt"
"""The best weights by the validation split; absent without such a split."""

_FOLDER, _LAST_FILE = "checkpoints", "checkpoint.pt"


def last_checkpoint(run: Path) -> Path:
    """Return the path of the state after the last step, from which `--resume` continues."""
    return run / _FOLDER / _LAST_FILE


def best_checkpoint(run: Path) -> Path:
    """Return the path of the best weights by the validation split."""
    return run / _FOLDER / BEST_FILE


def checkpoint_to_use(run: Path) -> Path:
    """Return the path of the best weights, or of the last ones if the run has no validation split."""
    best = best_checkpoint(run)
    return best if best.is_file() else last_checkpoint(run)
