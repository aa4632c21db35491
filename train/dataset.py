"""Old import path of `train.data.dataset`, in use before November 2026; kept for existing scripts."""

from train.data.dataset import SampleOptions, SampleRequest, TileDataset

__all__ = ["SampleOptions", "SampleRequest", "TileDataset"]
