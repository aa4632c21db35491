"""The path that `train.data.dataset` had before November 2026, for scripts that use it."""

from train.data.dataset import SampleOptions, SampleRequest, TileDataset

__all__ = ["SampleOptions", "SampleRequest", "TileDataset"]
