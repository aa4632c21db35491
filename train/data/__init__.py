"""Samples, their order and their batches; imports `train.runtime`, `train.transforms` and below."""
