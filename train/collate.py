"""Old import path of `train.data.collate`, in use before November 2026; kept for existing scripts."""

from train.data.collate import Batch, collate

__all__ = ["Batch", "collate"]
