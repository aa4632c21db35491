"""The path that `train.data.collate` had before November 2026, for scripts that use it."""

from train.data.collate import Batch, collate

__all__ = ["Batch", "collate"]
